/** What a condition's state means to the person watching it. Pure. */

import type { ConditionView, Status } from "./contract";
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

/** Real milliseconds after which a producer that says nothing is not believed any more (it reports every 5 s). */
export const SILENT_AFTER = 30_000;

/**
 * A word for the screen: the subscription's own states; `quiet` for a live one without hits or exits; `silent` if its
 * producer has stopped reporting, whatever it said last; `unknown` if it never reported.
 */
export type ConditionWord = SubscriptionState | "quiet" | "silent" | "unknown";

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
  silent: "bad",
  unknown: "unknown",
};

/** Whether whoever wrote a status has been silent for too long to be believed. */
export const isSilent = (status: Status, now: number, speed: number): boolean =>
  (now - parse(status.at)) / speed > SILENT_AFTER;

/** How a condition is doing at `now` (the market's clock in milliseconds, which runs `speed` times as fast). */
export function conditionWord(view: ConditionView, now: number, speed = 1): ConditionWord {
  const state = view.status?.state as SubscriptionState | undefined;
  if (!view.status || !state || !SUBSCRIPTION_STATES.includes(state)) return "unknown";
  // What is bad already stays so: a producer that was stopped says it last, and then nothing.
  if (TONES[state] !== "bad" && isSilent(view.status, now, speed)) return "silent";
  if (state !== "live") return state;
  const last = view.last_at ? parse(view.last_at) : parse(view.status.since);
  return now - last >= QUIET_AFTER ? "quiet" : "live";
}

/** Whether hits and exits of this condition are being received. */
export const isListening = (word: ConditionWord): boolean => word === "live" || word === "quiet";

/** Those in trouble first, then by name. */
export function orderConditions(views: Iterable<ConditionView>, now: number, speed: number): ConditionView[] {
  const rank = (view: ConditionView): number => (TONES[conditionWord(view, now, speed)] === "bad" ? 0 : 1);
  return [...views].sort((a, b) => rank(a) - rank(b) || a.condition.localeCompare(b.condition, "ko"));
}

/** Names of these conditions, each once, in the order of the alphabet: a name may be that of several accounts. */
export const conditionNames = (views: Iterable<Pick<ConditionView, "condition">>): string[] =>
  [...new Set([...views].map((view) => view.condition))].sort((a, b) => a.localeCompare(b, "ko"));

/** Whether these conditions are of more than one account, so that each must be named. */
export const hasSeveralAccounts = (views: readonly ConditionView[]): boolean => new Set(views.map((view) => view.account)).size > 1;

/** Tone of any component's own word of state; words that are not known are shown as they are, without judgement. */
export function componentTone(state: string): Tone {
  if (["live", "working", "ready", "running", "ok", "connected"].includes(state)) return "good";
  if (["starting", "connecting", "login", "listing", "requested", "rebuilding", "recovering", "stopping"].includes(state))
    return "pending";
  if (["resting", "stopped", "closed", "idle", "standby"].includes(state)) return "rest";
  // A worker or a sink that `waiting`s was ready and is not: nothing moves until what its cause names is there again.
  if (
    ["waiting", "disconnected", "refused", "unanswered", "missing", "displaced", "failed", "deaf", "silent", "stuck", "lagging"].includes(
      state,
    )
  )
    return "bad";
  return "unknown";
}
