/**
 * A stock's day as a chart needs it: candles, the running one from the last price, and marks where something happened.
 *
 * The chart library knows no zones: it is given KST as if it were UTC (`chartTime`). Pure.
 */

import type { Candle, PriceView, RecommendationView, Visit } from "./contract";
import { KST_OFFSET, parse } from "./time";
import { formatScore } from "./words";

export type Interval = "1m" | "5m" | "1d";

const SECONDS: Readonly<Record<Interval, number>> = { "1m": 60, "5m": 300, "1d": 86_400 };

export interface Bar {
  /** Seconds since 1970, as if KST were UTC: where the bar begins. */
  readonly time: number;
  readonly open: number;
  readonly high: number;
  readonly low: number;
  readonly close: number;
  readonly volume: number;
}

/** A moment in milliseconds as the chart is told it: at the beginning of its bar. */
export function chartTime(instant: number, interval: Interval): number {
  const seconds = Math.floor((instant + KST_OFFSET) / 1000);
  return seconds - (seconds % SECONDS[interval]);
}

/** Bars of an interval from those of minutes (or days), oldest first, one per time. */
export function barsOf(candles: readonly Candle[], interval: Interval): Bar[] {
  const bars: Bar[] = [];
  for (const candle of candles) {
    const time = chartTime(parse(candle.at), interval);
    const last = bars.at(-1);
    if (last && time < last.time) continue; // Out of order: the chart would refuse all.
    if (last?.time === time) {
      bars[bars.length - 1] = {
        ...last,
        high: Math.max(last.high, candle.high),
        low: Math.min(last.low, candle.low),
        close: candle.close,
        volume: last.volume + candle.volume,
      };
    } else {
      const { open, high, low, close, volume } = candle;
      bars.push({ time, open, high, low, close, volume });
    }
  }
  return bars;
}

/** The bars with the last price in the running one; a price that is older than the last bar changes nothing. */
export function withPrice(bars: readonly Bar[], price: PriceView | undefined, interval: Interval): readonly Bar[] {
  if (!price) return bars;
  const time = chartTime(parse(price.at), interval);
  const last = bars.at(-1);
  const { price: close } = price;
  if (last && time < last.time) return bars;
  if (last?.time === time) {
    if (last.close === close) return bars;
    return [...bars.slice(0, -1), { ...last, close, high: Math.max(last.high, close), low: Math.min(last.low, close) }];
  }
  const open = last?.close ?? close;
  return [...bars, { time, open, high: Math.max(open, close), low: Math.min(open, close), close, volume: 0 }];
}

export type MarkKind = "entered" | "exited" | "opened" | "closed";

export interface Mark {
  /** Its own time: that of its bar, whether trades were heard then or not. */
  readonly time: number;
  readonly kind: MarkKind;
  /** What it stands at: the bar of its time; without one, the last price before it; before all bars, where no price is known, the foot. */
  readonly at: "bar" | "foot" | number;
  /** Conditions, or what else it is about; several of one kind in one bar are one mark. */
  readonly names: readonly string[];
}

/** Pixels beside the first and the last place in which the words of a mark and of the time axis have room. */
export const EDGE = 48;

/** From which place to which the chart is to be seen so that all of them are, with room at both edges; null where it is too narrow. */
export function rangeOf(places: number, width: number): { from: number; to: number } | null {
  if (width <= 3 * EDGE) return null;
  const edge = (EDGE * places) / (width - 2 * EDGE);
  return { from: -0.5 - edge, to: places - 0.5 + edge };
}

/** Whether a mark hangs below what it stands at. At the foot only entries do, so that their names have the row to themselves. */
export const isBelow = ({ kind, at }: Pick<Mark, "kind" | "at">): boolean => kind === "entered" || (kind === "opened" && at !== "foot");

/** Every time that has a place on the chart: those of the bars, and of marks without one. */
export const timesOf = (bars: readonly Bar[], marks: readonly Mark[]): number[] =>
  [...new Set([...bars, ...marks].map(({ time }) => time))].sort((a, b) => a - b);

/** Which marks have room for their names: below the bars and above them, none within `distance` places of the one before. */
export function namedOf(marks: readonly Mark[], times: readonly number[], distance: number): ReadonlySet<Mark> {
  const places = new Map(times.map((time, index) => [time, index]));
  const last = { below: -Infinity, above: -Infinity };
  const named = new Set<Mark>();
  for (const mark of marks) {
    const side = isBelow(mark) ? "below" : "above";
    const place = places.get(mark.time) ?? 0;
    if (place - last[side] < distance) continue;
    last[side] = place;
    named.add(mark);
  }
  return named;
}

/** What happened, at the time at which it did, oldest first. */
export function marksOf(
  visits: readonly Visit[],
  recommendations: readonly RecommendationView[],
  bars: readonly Bar[],
  interval: Interval,
): Mark[] {
  if (bars.length === 0) return [];
  const marks = new Map<string, Mark & { names: string[] }>();
  const put = (instant: string, kind: MarkKind, name: string): void => {
    const time = chartTime(parse(instant), interval);
    const key = `${time}/${kind}`;
    const mark = marks.get(key) ?? { time, kind, at: standing(bars, time), names: [] };
    mark.names.push(name);
    marks.set(key, mark);
  };
  for (const visit of visits) {
    put(visit.since, "entered", visit.condition);
    if (visit.until !== null) put(visit.until, "exited", visit.condition);
  }
  for (const { recommendation } of recommendations) {
    put(recommendation.opened_at, "opened", formatScore(recommendation.score));
    if (recommendation.state === "closed") put(recommendation.at, "closed", formatScore(recommendation.score));
  }
  return [...marks.values()].sort((a, b) => a.time - b.time);
}

/** What a mark of this time stands at. */
function standing(bars: readonly Bar[], time: number): Mark["at"] {
  let low = 0;
  let high = bars.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bars[middle]!.time <= time) low = middle + 1;
    else high = middle;
  }
  const last = bars[low - 1];
  if (!last) return "foot";
  return last.time === time ? "bar" : last.close;
}
