/**
 * A list made anew that says the same as the one before is the one before: what hangs on it is not done again. Pure but for
 * remembering the last list.
 */
export function stable<T>(): (next: readonly T[]) => readonly T[] {
  let last: readonly T[] = [];
  return (next) => {
    if (next.length !== last.length || next.some((each, index) => each !== last[index])) last = next;
    return last;
  };
}
