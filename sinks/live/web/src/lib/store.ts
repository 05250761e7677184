/**
 * The page's state: what the hub has said so far.
 *
 * Pure: an event and the state before give the state after; no DOM, no network, no clock (`received` is passed in, in
 * milliseconds of any steady clock). What did not change keeps its identity, so that the screen redraws only what did.
 *
 * A new day needs nothing here: the hub begins it with a snapshot.
 *
 * The one rule: a change replaces what is held under its key, and nothing ever goes back – an event numbered lower, a
 * revision that is older or a status that was said earlier is left aside.
 */

import {
  RETIRED,
  type ComponentView,
  type ConditionView,
  type Delta,
  type EventId,
  type FeedItem,
  type GapView,
  type PriceView,
  type RecommendationView,
  type Snapshot,
  type Status,
} from "./contract";
import { parse } from "./time";

/** Lines of the feed that are kept (searched and filtered); fewer are drawn. */
export const FEED_LIMIT = 1000;

/** Recommendations that are kept; beyond it those are forgotten that were closed, the first opened first. */
export const RECOMMENDATION_LIMIT = 1000;

/** Stocks whose price is kept; beyond it those are forgotten whose first price came first. */
export const PRICE_LIMIT = 4000;

export interface RecommendationEntry {
  readonly view: RecommendationView;
  /** When its opening arrived, null if it was there when the page came. */
  readonly arrived: number | null;
  /** When its latest revision arrived, null if the page has seen only one. */
  readonly revised: number | null;
}

export interface FeedEntry {
  readonly item: FeedItem;
  /** Counts arrivals; newer is higher. */
  readonly order: number;
  /** When it arrived, null if it was there when the page came. */
  readonly arrived: number | null;
}

export interface State {
  readonly epoch: string;
  readonly number: number;
  /** The market's clock at `received`, in milliseconds since 1970. */
  readonly now: number;
  readonly received: number;
  readonly speed: number;
  readonly recommendations: ReadonlyMap<string, RecommendationEntry>;
  /** Newest first, at most `FEED_LIMIT`. */
  readonly feed: readonly FeedEntry[];
  readonly conditions: ReadonlyMap<string, ConditionView>;
  readonly components: ReadonlyMap<string, ComponentView>;
  readonly gaps: ReadonlyMap<string, GapView>;
  /** The last price of each stock that has one, by code. */
  readonly prices: ReadonlyMap<string, PriceView>;
}

/** What is of one condition is found under this. */
export const conditionKey = (of: Pick<ConditionView, "account" | "condition">): string => `${of.account}/${of.condition}`;

/** The state after a snapshot. One that is older than what the page holds changes nothing. */
export function applySnapshot(before: State | null, snapshot: Snapshot, received: number): State {
  if (before && before.epoch === snapshot.epoch && snapshot.number < before.number) return before;
  const firstOrder = (before?.feed[0]?.order ?? 0) + 1;
  const known = new Set(before?.feed.map((entry) => entry.item.transition.id));
  const feed = snapshot.feed
    .slice(-FEED_LIMIT)
    .map((item, index): FeedEntry => {
      // Seen again after a break: what is news to the reader is still marked as new.
      const isNews = before !== null && !known.has(item.transition.id);
      return { item, order: firstOrder + index, arrived: isNews ? received : null };
    })
    .reverse();
  return {
    epoch: snapshot.epoch,
    number: snapshot.number,
    now: parse(snapshot.now),
    received,
    speed: snapshot.speed,
    recommendations: new Map(
      snapshot.recommendations.map((view) => {
        const id = view.recommendation.recommendation_id;
        const held = before?.recommendations.get(id);
        const arrived = held ? held.arrived : before ? received : null;
        return [id, { view, arrived, revised: held?.revised ?? null }];
      }),
    ),
    feed,
    conditions: new Map(snapshot.conditions.map((view) => [conditionKey(view), view])),
    components: new Map(snapshot.components.map((view) => [view.status.component, view])),
    gaps: new Map(snapshot.gaps.map((view) => [view.gap.id, view])),
    prices: new Map((snapshot.prices ?? []).map((view) => [view.code, view])),
  };
}

/** The state after a delta. A delta that the page has already had changes nothing. */
export function applyDelta(before: State, id: EventId, delta: Delta, received: number): State {
  if (id.epoch !== before.epoch) return before;
  if (id.number <= before.number) return applyHeartbeat(before, delta.now, received);
  const now = Math.max(before.now, parse(delta.now));
  let feed = before.feed;
  const recommendations = copiedOnWrite(before.recommendations);
  const conditions = copiedOnWrite(before.conditions);
  const components = copiedOnWrite(before.components);
  const gaps = copiedOnWrite(before.gaps);
  const prices = copiedOnWrite(before.prices);
  const fresh: FeedEntry[] = [];
  for (const change of delta.changes) {
    switch (change.change) {
      case "recommendation": {
        const { recommendation_id: key, revision } = change.recommendation;
        const held = recommendations.get(key);
        const heldRevision = held?.view.recommendation.revision ?? 0;
        if (revision < heldRevision) break;
        recommendations.set(key, {
          view: change,
          arrived: held ? held.arrived : received,
          revised: held && revision > heldRevision ? received : (held?.revised ?? null),
        });
        break;
      }
      case "track": {
        const held = recommendations.get(change.recommendation_id);
        if (held) recommendations.set(change.recommendation_id, { ...held, view: { ...held.view, track: change.track } });
        break;
      }
      case "price": {
        const held = prices.get(change.code);
        if (!held || parse(change.at) >= parse(held.at)) prices.set(change.code, change);
        break;
      }
      case "feed": {
        const key = change.transition.id;
        const pending = fresh.findIndex((entry) => entry.item.transition.id === key);
        if (pending >= 0) {
          fresh[pending] = { ...fresh[pending]!, item: change };
          break;
        }
        const index = feed.findIndex((entry) => entry.item.transition.id === key);
        if (index >= 0) {
          feed = feed.with(index, { ...feed[index]!, item: change });
          break;
        }
        // A full feed has forgotten its oldest lines: one that is older still is a repeat of those, not news.
        const oldest = feed.length >= FEED_LIMIT ? feed.at(-1) : undefined;
        if (oldest && parse(change.transition.at) < parse(oldest.item.transition.at)) break;
        const order = (fresh.at(-1)?.order ?? feed[0]?.order ?? 0) + 1;
        fresh.push({ item: change, order, arrived: received });
        break;
      }
      case "condition": {
        if (change.status?.state === RETIRED) conditions.delete(conditionKey(change));
        else conditions.set(conditionKey(change), change);
        break;
      }
      case "component": {
        const held = components.get(change.status.component);
        // Older than what is held – unless that was dated by a clock that has been set back since.
        const heldAt = held ? parse(held.status.at) : -Infinity;
        if (parse(change.status.at) < heldAt && heldAt <= now) break;
        if (change.status.state === RETIRED) components.delete(change.status.component);
        else components.set(change.status.component, change);
        break;
      }
      case "gap": {
        gaps.set(change.gap.id, change);
        break;
      }
    }
  }
  forget(recommendations, RECOMMENDATION_LIMIT, (entry) => entry.view.recommendation.state === "closed");
  forget(prices, PRICE_LIMIT, () => true);
  if (fresh.length > 0) feed = [...fresh.reverse(), ...feed].slice(0, FEED_LIMIT);
  return {
    ...before,
    number: id.number,
    now,
    received,
    recommendations: recommendations.result,
    feed,
    conditions: conditions.result,
    components: components.result,
    gaps: gaps.result,
    prices: prices.result,
  };
}

/** Keep a map within its limit, as far as there is anything in it that may be forgotten. */
function forget<T>(map: CopiedOnWrite<T>, limit: number, mayBe: (value: T) => boolean): void {
  let excess = map.result.size - limit;
  if (excess <= 0) return;
  for (const [key, value] of [...map.result]) {
    if (excess <= 0) return;
    if (!mayBe(value)) continue;
    map.delete(key);
    excess--;
  }
}

type CopiedOnWrite<T> = ReturnType<typeof copiedOnWrite<T>>;

/** A map that is copied by the first write, so that one nobody writes to keeps its identity. */
function copiedOnWrite<T>(original: ReadonlyMap<string, T>) {
  let copy: Map<string, T> | null = null;
  return {
    get: (key: string): T | undefined => (copy ?? original).get(key),
    set: (key: string, value: T): void => void (copy ??= new Map(original)).set(key, value),
    delete: (key: string): void => {
      if ((copy ?? original).has(key)) (copy ??= new Map(original)).delete(key);
    },
    get result(): ReadonlyMap<string, T> {
      return copy ?? original;
    },
  };
}

/** The state after a heartbeat: only the clock moves. */
export function applyHeartbeat(before: State, now: string, received: number): State {
  return { ...before, now: Math.max(before.now, parse(now)), received };
}

/** Why the hub itself is not up to date, if it says so of itself (`live/hub` in another state than live). */
export function hubTrouble(state: State): Status | null {
  const hub = state.components.get("live/hub")?.status;
  return hub && hub.state !== "live" ? hub : null;
}

// --- what the screen asks ---------------------------------------------------------------------------------------------

/** Open recommendations: highest score first, then the latest opened. */
export function openRecommendations(state: Pick<State, "recommendations">): RecommendationEntry[] {
  return [...state.recommendations.values()]
    .filter((entry) => entry.view.recommendation.state === "open")
    .sort((a, b) => {
      const [x, y] = [a.view.recommendation, b.view.recommendation];
      return y.score - x.score || parse(y.opened_at) - parse(x.opened_at) || (x.code < y.code ? -1 : 1);
    });
}

/** Closed recommendations, the latest closed first. */
export function closedRecommendations(state: Pick<State, "recommendations">): RecommendationEntry[] {
  return [...state.recommendations.values()]
    .filter((entry) => entry.view.recommendation.state === "closed")
    .sort((a, b) => parse(b.view.recommendation.at) - parse(a.view.recommendation.at));
}

/**
 * Order for a reader who is pointing at the list: held rows stay where they are, new ones follow.
 *
 * @param find gives a held one that is in the list no more, so that it keeps its place; without it, it is left out
 */
export function holdOrder(
  sorted: readonly RecommendationEntry[],
  held: readonly string[],
  find?: (id: string) => RecommendationEntry | undefined,
): readonly RecommendationEntry[] {
  const byId = new Map(sorted.map((entry) => [entry.view.recommendation.recommendation_id, entry]));
  const kept = held.flatMap((id) => byId.get(id) ?? find?.(id) ?? []);
  const heldIds = new Set(held);
  return [...kept, ...sorted.filter((entry) => !heldIds.has(entry.view.recommendation.recommendation_id))];
}

/** A round figure at which every score bar is full, so that bars are comparable and rarely rescale. */
export function scoreScale(entries: readonly RecommendationEntry[]): number {
  const highest = entries.reduce((top, { view }) => {
    return Math.max(top, view.recommendation.score, view.recommendation.threshold * 1.25);
  }, 0);
  if (highest <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  const step = [1, 1.5, 2, 3, 4, 5, 7.5, 10].find((candidate) => candidate * power >= highest);
  return (step ?? 10) * power;
}
