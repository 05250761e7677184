/** Hits per minute over the day. Pure. */

import type { ConditionDetail } from "./contract";
import { closeOf, parse } from "./time";

const MINUTE = 60;

export interface Minutes {
  /** Seconds since 1970 at which each minute begins. */
  readonly times: readonly number[];
  readonly hits: readonly number[];
}

/**
 * The minutes from the first that had a hit until now, or until the close if no hit came after it; those without hits
 * are zeros, not holes.
 */
export function minutesOf(detail: Pick<ConditionDetail, "minutes_from" | "hits">, now: number): Minutes {
  if (detail.minutes_from === null) return { times: [], hits: [] };
  const from = Math.floor(parse(detail.minutes_from) / 1000 / MINUTE) * MINUTE;
  const until = Math.min(Math.floor(now / 1000 / MINUTE) * MINUTE, closeOf(from * 1000) / 1000);
  const count = Math.max(detail.hits.length, Math.min(24 * 60, (until - from) / MINUTE + 1));
  const every = Array.from({ length: count }, (_, index) => index);
  return { times: every.map((index) => from + index * MINUTE), hits: every.map((index) => detail.hits[index] ?? 0) };
}
