/** What a single key does. Pure; who does it is the page. */

export type Action =
  | "now" | "feed" | "conditions" | "health" | "search" | "next" | "previous" | "pin" | "pause" | "recommend" | "csv" | "help";

export const KEYS: readonly (readonly [key: string, action: Action])[] = [
  ["1", "now"],
  ["2", "feed"],
  ["3", "conditions"],
  ["4", "health"],
  ["/", "search"],
  ["j", "next"],
  ["k", "previous"],
  ["s", "pin"],
  ["p", "pause"],
  ["r", "recommend"],
  ["c", "csv"],
  ["?", "help"],
];

/** Where the physical keys of the letters are: with a Korean input method `key` is a jamo, and the code still the letter's. */
const CODES: ReadonlyMap<string, string> = new Map("jkspcr".split("").map((letter) => [`Key${letter.toUpperCase()}`, letter]));

export interface Pressed {
  readonly key: string;
  readonly code: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
  readonly isComposing: boolean;
}

/** What this key does; null if nothing, or if it belongs to the browser or an input method. */
export function actionOf(pressed: Pressed): Action | null {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey || pressed.isComposing) return null;
  const key = CODES.get(pressed.code) ?? pressed.key;
  return KEYS.find(([each]) => each === key)?.[1] ?? null;
}

/** Whether keys pressed there are text or a choice, and none of ours. */
export const isTyping = (target: EventTarget | null): boolean =>
  target instanceof Element && target.closest("input, select, textarea, dialog, [contenteditable]") !== null;
