/**
 * What a person has commanded, until the stream says what came of it. Pure.
 *
 * Nothing is shown as done because it was asked for: a command is `sending`, then `sent` (Kafka has it), and `done` only
 * when a recommendation comes back that names it as its cause. One that does not come back in time is `unanswered` – it
 * may have been refused where it was accepted, or nobody works on it – and still becomes `done` if it comes later.
 */

import type { State } from "./store";

/** Real milliseconds after which a command that has not come back is worth a word. */
export const UNANSWERED_AFTER = 15_000;

/** Real milliseconds for which what is over stays on the screen. */
export const SHOWN_AFTER = 20_000;

/** Commands that are kept. */
const LIMIT = 20;

export type CommandState = "sending" | "sent" | "unanswered" | "refused" | "done";

export interface Sent {
  /** The page's own name for it; the server takes the same one twice for one. */
  readonly request: string;
  readonly kind: "recommend" | "withdraw";
  readonly code: string;
  readonly note: string;
  /** When it was sent, and when its state changed last, in milliseconds of a steady clock. */
  readonly at: number;
  readonly changed: number;
  readonly state: CommandState;
  /** The server's id of it, once accepted. */
  readonly id: string;
  /** Why it was refused. */
  readonly error: string;
}

const isOver = (sent: Sent): boolean => sent.state === "refused" || sent.state === "done";

/** The commands after one more has been sent; the oldest are forgotten. */
export const withNew = (all: readonly Sent[], sent: Sent): readonly Sent[] => [sent, ...all].slice(0, LIMIT);

/** The commands after one has changed. */
export const withChange = (all: readonly Sent[], request: string, change: Partial<Sent>): readonly Sent[] =>
  all.map((sent) => (sent.request === request ? { ...sent, ...change } : sent));

/**
 * The commands after looking at what the stream has said; the same list where nothing changes.
 *
 * @param now a steady clock in milliseconds
 */
export function followUp(all: readonly Sent[], state: State, now: number): readonly Sent[] {
  const left = all.filter((sent) => !isOver(sent) || now - sent.changed < SHOWN_AFTER);
  const waiting = left.some((sent) => !isOver(sent));
  const causes = waiting ? causesIn(state) : new Set<string>();
  const next = left.map((sent): Sent => {
    if (isOver(sent) || sent.id === "") return sent;
    if (causes.has(sent.id)) return { ...sent, state: "done", changed: now };
    if (sent.state === "sent" && now - sent.at >= UNANSWERED_AFTER) return { ...sent, state: "unanswered", changed: now };
    return sent;
  });
  return next.length === all.length && next.every((sent, index) => sent === all[index]) ? all : next;
}

const causesIn = (state: State): ReadonlySet<string> =>
  new Set([...state.recommendations.values()].map(({ view }) => view.recommendation.cause_id));
