/** Which recommendations the table shows, and in which order: filters, sorting, pins. Pure. */

import type { PriceView } from "./contract";
import { matchesStock } from "./hangul";
import { fateOf } from "./prices";
import type { RecommendationEntry } from "./store";
import { parse } from "./time";

export const SORTS = ["score", "opened", "change", "day", "name"] as const;
export type Sort = (typeof SORTS)[number];

/** The order of a column that its first press gives: the best, the newest, the alphabet from its start. */
export const FIRST_DESCENDING: Readonly<Record<Sort, boolean>> = {
  score: true,
  opened: true,
  change: true,
  day: true,
  name: false,
};

export interface Wanted {
  /** Normalised by `hangul.normalise`. */
  readonly query: string;
  /** A condition's name, or empty for all. */
  readonly condition: string;
  readonly sort: Sort;
  readonly isDescending: boolean;
  /** Codes that stand above all others. */
  readonly pins: ReadonlySet<string>;
}

export type Prices = ReadonlyMap<string, PriceView>;

function isWanted(entry: RecommendationEntry, wanted: Pick<Wanted, "query" | "condition">): boolean {
  const { name, recommendation } = entry.view;
  return (
    (wanted.condition === "" || recommendation.reasons.some((reason) => reason.condition === wanted.condition)) &&
    matchesStock(wanted.query, name, recommendation.code)
  );
}

/** What a sort compares; null stands last, whichever way the sort goes. */
function valueOf(entry: RecommendationEntry, sort: Sort, prices: Prices): number | string | null {
  const { view } = entry;
  const price = prices.get(view.recommendation.code);
  switch (sort) {
    case "score":
      return view.recommendation.score;
    case "opened":
      return parse(view.recommendation.opened_at);
    case "change":
      return fateOf(view, price).change;
    case "day":
      return price?.change_rate ?? null;
    case "name":
      return view.name || view.recommendation.code;
  }
}

/** The wanted ones in order. Those that are equal stay in the order of `open`, which is by rank. */
export function arrange(open: readonly RecommendationEntry[], wanted: Wanted, prices: Prices): RecommendationEntry[] {
  const way = wanted.isDescending ? -1 : 1;
  const keyed = open
    .filter((entry) => isWanted(entry, wanted))
    .map((entry) => ({
      entry,
      isPinned: wanted.pins.has(entry.view.recommendation.code),
      value: valueOf(entry, wanted.sort, prices),
    }));
  keyed.sort((a, b) => {
    if (a.isPinned !== b.isPinned) return a.isPinned ? -1 : 1;
    if (a.value === null || b.value === null) return Number(a.value === null) - Number(b.value === null);
    if (typeof a.value === "string" || typeof b.value === "string")
      return way * String(a.value).localeCompare(String(b.value), "ko");
    return way * (a.value - b.value);
  });
  return keyed.map(({ entry }) => entry);
}
