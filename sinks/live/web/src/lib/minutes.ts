/** Hits per minute over the day. Pure. */

import type { ConditionDetail } from "./contract";
import { closeOf, KST_OFFSET, parse } from "./time";

const MINUTE = 60;
/** Minutes between two labels of the axis. */
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 240] as const;

type Hits = Pick<ConditionDetail, "minutes_from" | "hits">;

export interface Minutes {
  /** Seconds since 1970 at which each minute begins. */
  readonly times: readonly number[];
  readonly hits: readonly number[];
}

/** Seconds since 1970 at which the first and the last minute that are shown begin. */
export interface Span {
  readonly from: number;
  readonly until: number;
}

/**
 * One span for all of these conditions, so that they can be compared: from the first minute in which any of them had a
 * hit until now, or until the close if no hit came after it. Null where none had any.
 */
export function spanOf(details: Iterable<Hits>, now: number): Span | null {
  let [from, last] = [Infinity, -Infinity];
  for (const { minutes_from, hits } of details) {
    if (minutes_from === null) continue;
    const first = minuteOf(minutes_from);
    from = Math.min(from, first);
    last = Math.max(last, first + (hits.length - 1) * MINUTE);
  }
  if (from === Infinity) return null;
  const until = Math.min(Math.floor(now / 1000 / MINUTE) * MINUTE, closeOf(from * 1000) / 1000, from + (24 * 60 - 1) * MINUTE);
  return { from, until: Math.max(last, until) };
}

/** The minutes of a span; those without hits are zeros, not holes. None where there was no hit at all. */
export function minutesOf({ minutes_from, hits }: Hits, span: Span | null): Minutes {
  if (minutes_from === null || span === null) return { times: [], hits: [] };
  const before = (minuteOf(minutes_from) - span.from) / MINUTE;
  const every = Array.from({ length: (span.until - span.from) / MINUTE + 1 }, (_, index) => index);
  return { times: every.map((index) => span.from + index * MINUTE), hits: every.map((index) => hits[index - before] ?? 0) };
}

/** How many of the entries are in no minute, because a list told of them: the day's first, or one after a gap. */
export const listedOf = ({ condition, hits }: Pick<ConditionDetail, "condition" | "hits">): number =>
  Math.max(0, condition.entered - hits.reduce((sum, count) => sum + count, 0));

/** Where the axis has labels: at whole minutes in KST, each of which reads differently, and no more than `most`. */
export function ticksOf(from: number, until: number, most: number): number[] {
  const offset = KST_OFFSET / 1000;
  for (const minutes of STEPS) {
    const step = minutes * MINUTE;
    const first = Math.ceil((from + offset) / step) * step - offset;
    const count = Math.max(0, Math.floor((until - first) / step) + 1);
    if (count <= Math.max(1, most) || minutes === STEPS.at(-1)) return Array.from({ length: count }, (_, index) => first + index * step);
  }
  return [];
}

const minuteOf = (instant: string): number => Math.floor(parse(instant) / 1000 / MINUTE) * MINUTE;
