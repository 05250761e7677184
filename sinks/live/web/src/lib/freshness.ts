/** Whether what is on the screen may be called current. Pure. */

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
