/** Whether what is on the screen may be called current: by the page's own connection, and by what is received. Pure. */

import { conditionWord, isListening, TONES } from "./condition";
import type { ConditionView } from "./contract";
import { parse } from "./time";

/** Milliseconds of silence after which nothing on the page counts as current (heartbeats come every second). */
export const STALE_AFTER = 2000;

/** Milliseconds of silence on an open connection after which it is given up and opened anew. */
export const REOPEN_AFTER = 6000;

export type Connection = "connecting" | "live" | "stale";

/**
 * The state of the page's connection.
 *
 * @param hasState whether a snapshot has ever arrived
 * @param broken whether the connection has failed and not been brought up to date since, or the hub says it is deaf
 * @param age milliseconds since the last event or heartbeat
 */
export function connectionState(hasState: boolean, broken: boolean, age: number): Connection {
  if (!hasState) return "connecting";
  return broken || age >= STALE_AFTER ? "stale" : "live";
}

/** What is received of all conditions together; `cut` and `starting` leave what is recommended without a ground. */
export type Feed = "received" | "resting" | "starting" | "cut";

export interface Reception {
  readonly feed: Feed;
  /** The last moment at which any condition was known to be received; null if there never was one. */
  readonly until: number | null;
}

/**
 * Whether the recommendations rest on anything: the page may be connected to a hub that hears everything there is, and
 * that is nothing. One condition that is received is enough; each of the others says for itself how it is.
 *
 * @param now the market's clock in milliseconds, which runs `speed` times as fast
 */
export function reception(views: Iterable<ConditionView>, now: number, speed: number): Reception {
  const all = [...views];
  const words = all.map((view) => conditionWord(view, now, speed));
  const proofs = all.flatMap(({ status }) => (status?.proof_of_life ? [parse(status.proof_of_life)] : []));
  const until = proofs.length > 0 ? Math.max(...proofs) : null;
  if (all.length === 0 || words.some(isListening)) return { feed: "received", until };
  if (words.every((word) => word === "resting")) return { feed: "resting", until };
  return { feed: words.some((word) => TONES[word] === "pending") ? "starting" : "cut", until };
}
