/** Shapes as the hub sends them, with what a test cares about filled in by it. */

import type {
  Change,
  ComponentView,
  ConditionView,
  Delta,
  FeedItem,
  Gap,
  GapView,
  Reason,
  Recommendation,
  RecommendationView,
  Snapshot,
  Status,
  Transition,
} from "../src/lib/contract";

export const NINE = "2026-07-13T09:00:00+09:00";
export const at = (seconds: number): string => new Date(Date.parse(NINE) + seconds * 1000).toISOString();

export function reason(over: Partial<Reason> = {}): Reason {
  return {
    kind: "condition",
    condition: "신고가 돌파",
    algorithm_id: "high",
    since: NINE,
    visits: 1,
    score: 1,
    by: "",
    note: "",
    ...over,
  };
}

export function recommendation(over: Partial<Recommendation> = {}, name = "삼성전자"): RecommendationView {
  const id = over.recommendation_id ?? "r1";
  const revision = over.revision ?? 1;
  return {
    change: "recommendation",
    name,
    market: "KOSPI",
    previous_close: 70000,
    track: null,
    recommendation: {
      type: "recommendation",
      id: `${id}-${revision}`,
      recommendation_id: id,
      revision,
      account: "main",
      code: "005930",
      date: "2026-07-13",
      state: "open",
      cause: "threshold",
      cause_id: "t1",
      rule: "sum",
      score: 1,
      threshold: 1,
      reasons: [reason()],
      opened_at: NINE,
      at: NINE,
      expires_at: null,
      ...over,
    },
  };
}

export function feed(over: Partial<Transition> = {}, name = "삼성전자"): FeedItem {
  return {
    change: "feed",
    name,
    transition: {
      type: "transition",
      id: "t1",
      account: "main",
      condition: "신고가 돌파",
      code: "005930",
      exchange: "KRX",
      kind: "entered",
      origin: "realtime",
      date: "2026-07-13",
      entry: 1,
      at: NINE,
      since: NINE,
      dwell: null,
      initial: false,
      gap_from: null,
      gap_to: null,
      ...over,
    },
  };
}

export function status(over: Partial<Status> = {}): Status {
  return {
    type: "status",
    component: "subscription/main/p1/신고가 돌파",
    kind: "subscription",
    state: "live",
    cause: "",
    since: NINE,
    at: NINE,
    account: "main",
    condition: "신고가 돌파",
    proof_of_life: NINE,
    last_frame: NINE,
    last_ping: NINE,
    members: null,
    figures: {},
    ...over,
  };
}

export function condition(over: Partial<ConditionView> = {}): ConditionView {
  return {
    change: "condition",
    account: "main",
    condition: "신고가 돌파",
    members: 0,
    entered: 0,
    exited: 0,
    last_at: null,
    status: status(),
    ...over,
  };
}

export const component = (over: Partial<Status> = {}): ComponentView => ({
  change: "component",
  status: status({ component: "session/main/p1", kind: "session", ...over }),
});

export const gap = (over: Partial<Gap> = {}): GapView => ({
  change: "gap",
  gap: {
    type: "gap",
    id: "g1",
    account: "main",
    condition: "신고가 돌파",
    from: NINE,
    to: at(30),
    cause: "no PING for 35 s",
    ...over,
  },
});

export const snapshot = (over: Partial<Snapshot> = {}): Snapshot => ({
  epoch: "e",
  number: 10,
  now: NINE,
  speed: 1,
  recommendations: [],
  feed: [],
  conditions: [],
  components: [],
  gaps: [],
  prices: [],
  ...over,
});

export const delta = (...changes: Change[]): Delta => ({ now: at(1), changes });
