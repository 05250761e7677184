/** How a condition's hits have fared, in words that never leave out how many they were and how sure it is. Pure. */

import type { Performance } from "./contract";
import { formatPercent } from "./prices";
import { conditionKey } from "./store";
import { kstDate, kstMoment, parse } from "./time";

export const HORIZONS = ["1m", "5m", "30m", "close", "next_open", "best", "worst"] as const;

/** Cases below which a mean says next to nothing, and is shown as such. */
export const FEW = 30;

export interface Figure {
  /** In percent; null: no case has a price. */
  readonly value: number | null;
  /** `−0.10 … +0.74`; empty where the cases are too few for one. */
  readonly interval: string;
  /** Cases behind it. */
  readonly cases: number;
  /** Whether zero lies outside the interval, so that up or down may be read from it. */
  readonly isClear: boolean;
}

const bare = (change: number): string => formatPercent(change).replace("%", "");

function figure(value: number | null, low: number | null, high: number | null, cases: number): Figure {
  const hasInterval = low !== null && high !== null;
  return {
    value,
    interval: hasInterval ? `${bare(low)} … ${bare(high)}` : "",
    cases,
    isClear: hasInterval && cases >= FEW && (low > 0 || high < 0),
  };
}

/** The mean return with the interval of the mean. */
export const meanOf = (row: Performance): Figure => figure(row.mean, row.low, row.high, row.priced);

/** How much better the hits did than the sample of other stocks at the same times. */
export const differenceOf = (row: Performance): Figure =>
  figure(row.difference, row.difference_low, row.difference_high, Math.min(row.priced, row.sample_cases));

/**
 * The share of cases that rose, in percent, with its 95 % interval by Wilson (which keeps within 0 and 100 and holds for
 * few cases). Cases of one stock and day are not independent: it is too narrow rather than too wide.
 */
export function positiveOf(row: Performance): Figure {
  const { positive, priced } = row;
  if (positive === null || priced === 0) return { value: null, interval: "", cases: priced, isClear: false };
  const z = 1.96;
  const centre = (positive + (z * z) / (2 * priced)) / (1 + (z * z) / priced);
  const half = (z / (1 + (z * z) / priced)) * Math.sqrt((positive * (1 - positive)) / priced + (z * z) / (4 * priced * priced));
  const percent = (share: number): string => (100 * share).toFixed(0);
  return {
    value: positive * 100,
    interval: `${percent(Math.max(0, centre - half))} … ${percent(Math.min(1, centre + half))}`,
    cases: priced,
    isClear: priced >= FEW && (centre - half > 0.5 || centre + half < 0.5),
  };
}

/** So many hits of one horizon. */
export interface Missing {
  readonly horizon: Performance["horizon"];
  readonly count: number;
}

/** Hits that are not among the cases, and why. */
export interface LeftOut {
  /** They have no reference price and count at no horizon. */
  readonly withoutPrice: number;
  /** The horizon crosses the close. */
  readonly pastClose: readonly Missing[];
  /** The horizon is not over, or no price is known of its end; a next open comes with the next day. */
  readonly unknown: readonly Missing[];
}

/** Which hits of a condition's rows are left out, by cause and horizon. */
export function leftOut(rows: readonly Performance[]): LeftOut {
  const some = (count: (row: Performance) => number): readonly Missing[] =>
    rows.map((row) => ({ horizon: row.horizon, count: count(row) })).filter((each) => each.count > 0);
  return {
    withoutPrice: Math.max(0, ...rows.map((row) => row.without_price ?? 0)),
    pastClose: some((row) => row.past_close ?? 0),
    unknown: some((row) => row.hits - row.priced - (row.without_price ?? 0) - (row.past_close ?? 0)),
  };
}

/** Milliseconds after which it is said how old figures are: younger ones are as new as they get. */
const OLD = 300_000;

export interface AsOf {
  /** `14:32`, with the date where it is another day's. */
  readonly moment: string;
  /** Seconds, where it is of today and older than a few minutes; else null. */
  readonly age: number | null;
}

/**
 * As of when figures are.
 *
 * @param answered when they were answered (market milliseconds), which counts where they were worked out for the answer
 */
export function asOf(rows: readonly Performance[], answered: number, now: number): AsOf {
  const told = rows.flatMap(({ as_of }) => (as_of ? [parse(as_of)] : []));
  const at = told.length > 0 ? Math.max(...told) : answered;
  const isOld = now - at >= OLD && kstDate(at) === kstDate(now);
  return { moment: kstMoment(at, now), age: isOld ? (now - at) / 1000 : null };
}

/** Rows by `conditionKey`, each in the order of the horizons. */
export function byCondition(rows: readonly Performance[]): ReadonlyMap<string, readonly Performance[]> {
  const found = new Map<string, Performance[]>();
  for (const row of rows) {
    const key = conditionKey(row);
    found.set(key, [...(found.get(key) ?? []), row]);
  }
  for (const each of found.values()) each.sort((a, b) => HORIZONS.indexOf(a.horizon) - HORIZONS.indexOf(b.horizon));
  return found;
}
