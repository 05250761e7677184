/** The tables of the page as rows for a file: what is shown, in figures that a spreadsheet can reckon with. Pure. */

import type { Cell } from "./csv";
import { fateOf } from "./prices";
import type { Prices } from "./ranked";
import type { FeedEntry, RecommendationEntry } from "./store";
import { kstDate, kstTime, parse } from "./time";
import { inferredNote, type Words } from "./words";

const stamp = (instant: string): string => `${kstDate(parse(instant))} ${kstTime(parse(instant))}`;
const rounded = (value: number | null | undefined): number | null =>
  value === null || value === undefined ? null : Math.round(value * 10_000) / 10_000;

/** One row each below `Words.sheet.recommendations`, in the order given; times in KST, changes in percent. */
export function recommendationRows(entries: readonly RecommendationEntry[], prices: Prices): Cell[][] {
  return entries.map(({ view }) => {
    const { recommendation } = view;
    const price = prices.get(recommendation.code);
    const fate = fateOf(view, price);
    return [
      recommendation.code,
      view.name,
      view.market,
      recommendation.state,
      recommendation.score,
      recommendation.threshold,
      recommendation.reasons.map((reason) => reason.condition || reason.by).join(" + "),
      recommendation.reasons.reduce((sum, reason) => sum + (reason.kind === "condition" ? reason.visits : 0), 0),
      stamp(recommendation.opened_at),
      view.track?.reference.price ?? null,
      price?.price ?? null,
      rounded(price?.change_rate),
      rounded(fate.change),
      rounded(fate.best),
      rounded(fate.worst),
      recommendation.expires_at ? stamp(recommendation.expires_at) : null,
    ];
  });
}

/** One row each below `Words.sheet.feed`, in the order given; times in KST, the stay in seconds. */
export function feedRows(entries: readonly FeedEntry[], t: Words): Cell[][] {
  return entries.map(({ item: { name, transition } }) => [
    stamp(transition.at),
    t.kind[transition.kind],
    transition.code,
    name,
    transition.condition,
    transition.account,
    transition.entry,
    transition.dwell,
    inferredNote(transition, t)?.text ?? "",
  ]);
}
