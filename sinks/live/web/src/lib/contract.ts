/**
 * What the hub tells the page: a mirror of `sinks/live/views.py` and of the records of `streams/events.py` it carries.
 *
 * Times are ISO 8601 with an offset, prices whole won, durations seconds, scores in the rule's own unit. Fields that the
 * page does not use are left out; unknown ones are ignored.
 */

export type Instant = string;

export interface Reason {
  readonly kind: "condition" | "search" | "manual";
  readonly condition: string;
  readonly algorithm_id: string;
  readonly since: Instant;
  readonly visits: number;
  readonly score: number;
  readonly by: string;
  readonly note: string;
}

export type Cause = "threshold" | "command" | "reason" | "score" | "expired" | "withdrawn" | "day-end";

export interface Recommendation {
  readonly type: "recommendation";
  readonly id: string;
  readonly recommendation_id: string;
  readonly revision: number;
  readonly account: string;
  readonly code: string;
  readonly date: string;
  readonly state: "open" | "closed";
  readonly cause: Cause;
  readonly rule: string;
  readonly score: number;
  readonly threshold: number;
  readonly reasons: readonly Reason[];
  readonly opened_at: Instant;
  readonly at: Instant;
  readonly expires_at: Instant | null;
}

export interface Transition {
  readonly type: "transition";
  readonly id: string;
  readonly account: string;
  readonly condition: string;
  readonly code: string;
  readonly exchange: "KRX" | "NXT" | "AL";
  readonly kind: "entered" | "exited";
  readonly origin: "realtime" | "snapshot" | "day-end";
  readonly date: string;
  readonly entry: number;
  readonly at: Instant;
  readonly since: Instant;
  readonly dwell: number | null;
  readonly initial: boolean;
  readonly gap_from: Instant | null;
  readonly gap_to: Instant | null;
}

export interface Status {
  readonly type: "status";
  readonly component: string;
  readonly kind: "session" | "subscription" | "worker" | "sink" | "diagnosis";
  /** A word of the component's own; of a subscription see `SubscriptionState`. */
  readonly state: string;
  readonly cause: string;
  readonly since: Instant;
  readonly at: Instant;
  readonly account: string;
  /** Of a subscription or a search; else empty. */
  readonly condition: string;
  readonly proof_of_life: Instant | null;
  readonly last_frame: Instant | null;
  readonly last_ping: Instant | null;
  readonly members: number | null;
  readonly figures: Readonly<Record<string, number>>;
}

/** A time in which a condition's hits and exits may have been missed. */
export interface Gap {
  readonly type: "gap";
  readonly id: string;
  readonly account: string;
  readonly condition: string;
  readonly from: Instant;
  readonly to: Instant;
  readonly cause: string;
}

export interface RecommendationView {
  readonly change: "recommendation";
  readonly name: string;
  readonly market: string;
  readonly previous_close: number | null;
  readonly recommendation: Recommendation;
}

export interface FeedItem {
  readonly change: "feed";
  readonly name: string;
  readonly transition: Transition;
}

export interface ConditionView {
  readonly change: "condition";
  readonly account: string;
  readonly condition: string;
  readonly members: number;
  readonly entered: number;
  readonly exited: number;
  readonly last_at: Instant | null;
  readonly status: Status | null;
}

export interface ComponentView {
  readonly change: "component";
  readonly status: Status;
}

export interface GapView {
  readonly change: "gap";
  readonly gap: Gap;
}

/** State of what is no longer configured: the page forgets it. */
export const RETIRED = "retired";

export type Change = RecommendationView | FeedItem | ConditionView | ComponentView | GapView;

export interface Snapshot {
  readonly epoch: string;
  readonly number: number;
  readonly now: Instant;
  readonly speed: number;
  readonly recommendations: readonly RecommendationView[];
  /** Oldest first. */
  readonly feed: readonly FeedItem[];
  readonly conditions: readonly ConditionView[];
  readonly components: readonly ComponentView[];
  /** Today's. */
  readonly gaps: readonly GapView[];
}

export interface Delta {
  readonly now: Instant;
  /** Oldest first. */
  readonly changes: readonly Change[];
}

export interface Heartbeat {
  readonly now: Instant;
}

/** `epoch-number`, as the hub numbers its events. */
export interface EventId {
  readonly epoch: string;
  readonly number: number;
}

/** Read an event's id; null where it is none (the epoch itself may hold hyphens). */
export function parseEventId(id: string): EventId | null {
  const match = /^(.+)-(\d+)$/.exec(id);
  return match ? { epoch: match[1]!, number: Number(match[2]) } : null;
}
