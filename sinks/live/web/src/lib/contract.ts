/**
 * What the hub tells the page: a mirror of `sinks/live/views.py` and of the records of `streams/events.py` it carries,
 * and what the API answers, a mirror of `sinks/live/answers.py`.
 *
 * Times are ISO 8601 with an offset, prices whole won, durations seconds, scores in the rule's own unit. Questions and
 * fields that the page does not use are left out; unknown fields are ignored.
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
  /** Identity of the record that caused this revision: of a transition, a command, a deadline. */
  readonly cause_id: string;
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

export interface PricePoint {
  readonly price: number;
  readonly at: Instant;
}

/** How a stock has done since it was recommended. */
export interface Track {
  /** The first price known at or after the opening. */
  readonly reference: PricePoint;
  readonly high: PricePoint;
  readonly low: PricePoint;
  /** Where the first step of the line begins. */
  readonly line_from: Instant;
  /** Seconds. */
  readonly line_step: number;
  /** The closes of up to 60 steps; the step that runs is not in it, its price is that of `PriceView`. */
  readonly line: readonly number[];
}

export interface RecommendationView {
  readonly change: "recommendation";
  readonly name: string;
  readonly market: string;
  readonly previous_close: number | null;
  readonly recommendation: Recommendation;
  /** Null while no price since its opening is known, and for one that was closed long ago. */
  readonly track: Track | null;
}

/** Replaces the `track` of the recommendation with this id. */
export interface TrackView {
  readonly change: "track";
  readonly recommendation_id: string;
  readonly track: Track;
}

/** A stock's price now; key: `code`. */
export interface PriceView {
  readonly change: "price";
  readonly code: string;
  readonly price: number;
  readonly at: Instant;
  /** Percent, against the previous close. */
  readonly change_rate: number | null;
  readonly day_volume: number | null;
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

export type Change =
  | RecommendationView
  | TrackView
  | PriceView
  | FeedItem
  | ConditionView
  | ComponentView
  | GapView;

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
  /** The last price of each stock that has one. */
  readonly prices: readonly PriceView[];
}

export interface Delta {
  readonly now: Instant;
  /** Oldest first. */
  readonly changes: readonly Change[];
}

export interface Heartbeat {
  readonly now: Instant;
}

/** `epoch-number` or `epoch~place-number`, as the hub numbers its events; the place is for hubs alone. */
export interface EventId {
  readonly epoch: string;
  readonly number: number;
}

/** Read an event's id; null where it is none (the epoch itself may hold hyphens). */
export function parseEventId(id: string): EventId | null {
  const match = /^([^~]+)(?:~[0-9a-f.]*)?-(\d+)$/.exec(id);
  return match ? { epoch: match[1]!, number: Number(match[2]) } : null;
}

// --- what the API answers ---------------------------------------------------------------------------------------------

/** Every answer that is not 2xx: one sentence that says what to do. */
export interface Problem {
  readonly error: string;
}

/** `GET /api/session`. */
export interface Session {
  /** Label of the token, empty where none is asked for. */
  readonly who: string;
  readonly may_write: boolean;
  /** Send it as `X-Hitstream-CSRF` with every POST. */
  readonly csrf: string;
  /** Whether there is a login that can be ended: `POST /logout`, with the same header. */
  readonly may_log_out: boolean;
  /** Accounts whose conditions are known. */
  readonly accounts: readonly string[];
  /** Whether ClickHouse is configured: history, events and performance are answered from there. */
  readonly has_history: boolean;
}

/** One stock inside a condition. */
export interface Member {
  readonly code: string;
  readonly name: string;
  readonly since: Instant;
  /** Visits of today, this one included. */
  readonly entry: number;
  readonly price: PriceView | null;
}

/** `GET /api/conditions/{account}/{condition}`. */
export interface ConditionDetail {
  readonly condition: ConditionView;
  readonly members: readonly Member[];
  /** Where the first minute begins, null before the first hit. */
  readonly minutes_from: Instant | null;
  /** Hits in each minute since then, up to the last one that had any. */
  readonly hits: readonly number[];
  readonly gaps: readonly GapView[];
}

/** `GET /api/stocks?q=`. */
export interface StockView {
  readonly code: string;
  readonly name: string;
  readonly market: string;
  readonly previous_close: number | null;
}

/** One stay of a stock in a condition; `until` is null while it stays. */
export interface Visit {
  readonly account: string;
  readonly condition: string;
  readonly entry: number;
  readonly since: Instant;
  readonly until: Instant | null;
  /** Seconds. */
  readonly dwell: number | null;
  readonly origin: "realtime" | "snapshot" | "day-end";
  readonly initial: boolean;
  readonly gap_from: Instant | null;
  readonly gap_to: Instant | null;
}

/** `GET /api/stocks/{code}`: what happened to a stock today. */
export interface Story {
  readonly stock: StockView;
  readonly price: PriceView | null;
  /** Oldest first. */
  readonly visits: readonly Visit[];
  readonly recommendations: readonly RecommendationView[];
}

export interface Candle {
  readonly at: Instant;
  readonly open: number;
  readonly high: number;
  readonly low: number;
  readonly close: number;
  readonly volume: number;
}

/** `GET /api/stocks/{code}/bars?interval=1m&date=`, oldest first; `1d` gives the year up to `date`. */
export interface Bars {
  readonly code: string;
  readonly interval: "1m" | "1d";
  readonly date: string;
  /** `quotes`: of the prices heard today, only while the stock had a price slot; `bars`: Kiwoom's own. */
  readonly source: "quotes" | "bars";
  readonly bars: readonly Candle[];
}

/** `GET /api/stocks/{code}/history?days=`: one line per day and condition, newest first. */
export interface HistoryLine {
  readonly date: string;
  readonly account: string;
  readonly condition: string;
  readonly visits: number;
  readonly first_at: Instant;
  readonly last_at: Instant;
  /** Seconds inside, of the visits that ended. */
  readonly dwell: number;
}

/** `GET /api/performance?from=&to=`: how the hits of a condition fared. Returns in percent. */
export interface Performance {
  readonly account: string;
  readonly condition: string;
  readonly horizon: "1m" | "5m" | "30m" | "close" | "next_open" | "best" | "worst";
  readonly hits: number;
  readonly priced: number;
  readonly mean: number | null;
  readonly median: number | null;
  readonly q1: number | null;
  readonly q3: number | null;
  /** Share, 0 to 1. */
  readonly positive: number | null;
  /** The 95 % interval of the mean. */
  readonly low: number | null;
  readonly high: number | null;
  readonly sample_mean: number | null;
  readonly sample_cases: number;
  readonly difference: number | null;
  readonly difference_low: number | null;
  readonly difference_high: number | null;
  /** Gaps that overlap. */
  readonly gaps: number;
  /** Hits without a reference price, which count at no horizon. */
  readonly without_price?: number;
  /** Hits left out because the horizon crosses the close. */
  readonly past_close?: number;
  /** How far the figures go, in the market's time: the last that was heard of their newest day; null: worked out just now. Today's may be a minute or two old. */
  readonly as_of?: Instant | null;
}

/** `POST /api/commands/recommend`. */
export interface RecommendCommand {
  readonly code: string;
  readonly account?: string;
  /** At most 500 characters. */
  readonly note?: string;
  readonly expires_at?: Instant | null;
  /** Made by the page for each form that is sent: the same one twice is one command. 8 to 64 of `A-Za-z0-9_-`. */
  readonly request: string;
}

/** `POST /api/commands/withdraw`. */
export type WithdrawCommand = Omit<RecommendCommand, "expires_at">;

/** Its answer, 202: Kafka has the command; its result comes through the stream, as the `cause_id` of a recommendation. */
export interface Accepted {
  readonly id: string;
  readonly at: Instant;
}
