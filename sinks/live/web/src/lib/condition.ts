/** What a condition's state means to the person watching it. Pure. */

import type { ConditionView } from "./contract";
import { parse } from "./time";

/** Market milliseconds without a hit or exit after which a live condition is called quiet. Quiet is not dead. */
export const QUIET_AFTER = 60_000;

export const SUBSCRIPTION_STATES = [
  "disconnected",
  "listing",
  "requested",
  "live",
  "refused",
  "unanswered",
  "missing",
  "displaced",
  "resting",
] as const;
export type SubscriptionState = (typeof SUBSCRIPTION_STATES)[number];

/** A word for the screen: the subscription's own states, `quiet` for a live one that says nothing, `unknown`. */
export type ConditionWord = SubscriptionState | "quiet" | "unknown";

export type Tone = "good" | "calm" | "pending" | "rest" | "bad" | "unknown";

export const TONES: Readonly<Record<ConditionWord, Tone>> = {
  live: "good",
  quiet: "calm",
  listing: "pending",
  requested: "pending",
  resting: "rest",
  disconnected: "bad",
  refused: "bad",
  unanswered: "bad",
  missing: "bad",
  displaced: "bad",
  unknown: "unknown",
};

/** How a condition is doing at `now` (the market's clock, milliseconds). */
export function conditionWord(view: ConditionView, now: number): ConditionWord {
  const state = view.status?.state;
  if (!SUBSCRIPTION_STATES.includes(state as SubscriptionState)) return "unknown";
  if (state !== "live") return state as SubscriptionState;
  const last = view.last_at ? parse(view.last_at) : parse(view.status!.since);
  return now - last >= QUIET_AFTER ? "quiet" : "live";
}

/** Whether the hub hears this condition at all. */
export const isListening = (view: ConditionView): boolean => view.status?.state === "live";

/** Those in trouble first, then by name. */
export function conditionOrder(a: ConditionView, b: ConditionView): number {
  const rank = (view: ConditionView): number => (TONES[conditionWord(view, 0)] === "bad" ? 0 : 1);
  return rank(a) - rank(b) || a.condition.localeCompare(b.condition, "ko");
}

/** Tone of any component's own word of state; words that are not known are shown as they are, without judgement. */
export function componentTone(state: string): Tone {
  if (["live", "ready", "running", "ok", "logged-in", "connected", "up", "healthy"].includes(state)) return "good";
  if (["starting", "connecting", "listing", "requested", "rebuilding", "recovering", "logging-in", "stopping"].includes(state))
    return "pending";
  if (["resting", "stopped", "closed", "idle", "standby"].includes(state)) return "rest";
  if (["disconnected", "refused", "unanswered", "missing", "displaced", "failed", "down", "error", "not-ready", "unhealthy", "lagging"].includes(state))
    return "bad";
  return "unknown";
}
