/** Times as the market says them: always KST, whatever zone the browser is in. Pure. */

/** Milliseconds by which KST is ahead of UTC. */
export const KST_OFFSET = 9 * 3_600_000;
const DAY = 24 * 3_600_000;
/** Milliseconds from midnight to 15:30, when the regular session closes. */
const CLOSE = 15.5 * 3_600_000;

/** Milliseconds since 1970 of an ISO 8601 time with an offset. */
export const parse = (instant: string): number => Date.parse(instant);

const two = (value: number): string => (value < 10 ? `0${value}` : `${value}`);

/** `09:03:12` in KST. */
export function kstTime(instant: number): string {
  const date = new Date(instant + KST_OFFSET);
  return `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`;
}

/** `2026-07-13` in KST: the trading date. */
export function kstDate(instant: number): string {
  return new Date(instant + KST_OFFSET).toISOString().slice(0, 10);
}

/** `11-25 09:01` in KST, without the date where it is that of `now`; with seconds if they are wanted. */
export function kstMoment(instant: number, now: number, hasSeconds = false): string {
  const time = hasSeconds ? kstTime(instant) : kstTime(instant).slice(0, 5);
  return kstDate(instant) === kstDate(now) ? time : `${kstDate(instant).slice(5)} ${time}`;
}

/** When the regular session closes on the day of `instant`. */
export const closeOf = (instant: number): number => Math.floor((instant + KST_OFFSET) / DAY) * DAY - KST_OFFSET + CLOSE;

/** Day of the week in KST, 0 = Sunday. */
export const kstWeekday = (instant: number): number => new Date(instant + KST_OFFSET).getUTCDay();

/** The market's clock `elapsed` real milliseconds after it was `now`, at `speed` market seconds per real second. */
export const extrapolate = (now: number, elapsed: number, speed: number): number => now + Math.max(0, elapsed) * speed;

/** Real milliseconds until the market's clock shows another second, kept between 5 and 1 times a second. */
export function untilNextSecond(now: number, speed: number): number {
  const remaining = (1000 - (((now % 1000) + 1000) % 1000)) / speed;
  return Math.min(1000, Math.max(200, remaining));
}

/** `20260713-090312` in KST, for the name of a file. */
export const fileTime = (instant: number): string =>
  `${kstDate(instant).replaceAll("-", "")}-${kstTime(instant).replaceAll(":", "")}`;
