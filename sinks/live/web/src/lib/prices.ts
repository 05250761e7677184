/** What a price has done: since the hit, at best, at worst, as a figure and as a small line. Pure. */

import type { PriceView, RecommendationView } from "./contract";
import { parse } from "./time";

/** Change from `from` to `to` in percent; null where either is not known. */
export const changePercent = (from: number | null | undefined, to: number | null | undefined): number | null =>
  from && to ? (to / from - 1) * 100 : null;

export type Direction = "up" | "down" | "flat";

/** What a change looks like once it is rounded as it is shown: −0.001 % is neither up nor down. */
export function directionOf(change: number | null, decimals = 2): Direction {
  const shown = change === null ? 0 : Number(change.toFixed(decimals));
  return shown > 0 ? "up" : shown < 0 ? "down" : "flat";
}

/** `+1.23%`, `−0.40%`, `0.00%`: the sign is always there, so that the colour is never alone. */
export function formatPercent(change: number | null, decimals = 2): string {
  if (change === null) return "–";
  const direction = directionOf(change, decimals);
  const sign = direction === "up" ? "+" : direction === "down" ? "−" : "";
  return `${sign}${Math.abs(change).toFixed(decimals)}%`;
}

/** How a recommendation has done since it opened; changes in percent of the reference, null where not known. */
export interface Fate {
  readonly price: number | null;
  readonly change: number | null;
  readonly best: number | null;
  readonly worst: number | null;
  /** Prices from the opening until now: the reference, the closes of the minutes, the last. */
  readonly line: readonly number[];
}

/**
 * How a recommendation has done until `price`, the latest of its stock.
 *
 * What the hub says of high and low is as old as its last word on the recommendation; a newer price goes beyond it.
 * A closed recommendation has no newer price: it is judged by what the hub said.
 */
export function fateOf(view: RecommendationView, price: PriceView | undefined): Fate {
  const { track } = view;
  if (!track) return { price: price?.price ?? null, change: null, best: null, worst: null, line: [] };
  const reference = track.reference.price;
  const isOver = view.recommendation.state === "closed";
  const isNewer = price !== undefined && parse(price.at) >= parse(track.reference.at) - 1000;
  const latest = isOver ? (track.line.at(-1) ?? reference) : isNewer ? price.price : reference;
  return {
    price: price?.price ?? null,
    change: changePercent(reference, latest),
    best: changePercent(reference, Math.max(track.high.price, latest)),
    worst: changePercent(reference, Math.min(track.low.price, latest)),
    line: [reference, ...track.line, ...(isOver ? [] : [latest])],
  };
}

/** An SVG path through `points`, from left to right, in a box; empty for fewer than two. */
export function linePath(points: readonly number[], width: number, height: number): string {
  if (points.length < 2) return "";
  const low = Math.min(...points);
  const span = Math.max(...points) - low || 1;
  const x = (index: number): number => (index / (points.length - 1)) * width;
  const y = (value: number): number => height - ((value - low) / span) * height;
  return points.map((value, index) => `${index === 0 ? "M" : "L"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
}

/** Where in the box of `linePath` a price stands, from the top; null if it lies outside. */
export function levelIn(points: readonly number[], value: number | null, height: number): number | null {
  if (value === null || points.length < 2) return null;
  const low = Math.min(...points);
  const high = Math.max(...points);
  if (value < low || value > high) return null;
  return Number((height - ((value - low) / (high - low || 1)) * height).toFixed(1));
}
