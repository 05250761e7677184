/** Commands as Svelte sees them: who may send any, what was sent, and what came of it. */

import { ask, command, logOut } from "./api";
import { followUp, withChange, withNew, type Sent } from "./commands";
import type { RecommendCommand, Session, WithdrawCommand } from "./contract";
import type { State } from "./store";

const steady = (): number => performance.now();

class Commands {
  /** Who the server takes the reader for; null until it has said so. */
  session = $state.raw<Session | null>(null);
  /** Newest first. */
  sent = $state.raw<readonly Sent[]>([]);

  get mayWrite(): boolean {
    return this.session?.may_write ?? false;
  }

  /** Whether the server has said that this reader may send none. Until it has said anything, a command may be prepared. */
  get isReadOnly(): boolean {
    return this.session?.may_write === false;
  }

  /** Whether the server can be asked about other days; it may until it has said that it cannot. */
  get hasHistory(): boolean {
    return this.session?.has_history ?? true;
  }

  /** Ask anew who the reader is: at the start, and after a login. */
  async recall(): Promise<void> {
    const answer = await ask<Session>("session");
    this.session = answer.ok ? answer.value : null;
  }

  /** End the login, and with it this page: the server shows its login page instead. */
  async logOut(): Promise<void> {
    if (this.session) await logOut(this.session);
    location.reload();
  }

  recommend(given: Omit<RecommendCommand, "request">): Promise<boolean> {
    return this.#send("recommend", given);
  }

  withdraw(given: Omit<WithdrawCommand, "request">): Promise<boolean> {
    return this.#send("withdraw", given);
  }

  /** See what the stream says of what was sent. */
  follow(state: State): void {
    this.sent = followUp(this.sent, state, steady());
  }

  /** Whether the server has taken it. */
  async #send(kind: Sent["kind"], given: Omit<RecommendCommand, "request">): Promise<boolean> {
    if (!this.session) return false;
    const request = crypto.randomUUID();
    const now = steady();
    this.sent = withNew(this.sent, {
      request,
      kind,
      code: given.code,
      note: given.note ?? "",
      at: now,
      changed: now,
      state: "sending",
      id: "",
      error: "",
    });
    const answer = await command(kind, { ...given, request }, this.session);
    this.sent = withChange(
      this.sent,
      request,
      answer.ok
        ? { state: "sent", id: answer.value.id, changed: steady() }
        : { state: "refused", error: answer.error, changed: steady() },
    );
    // A page that was open for long holds the proof of a session that has ended.
    if (!answer.ok && (answer.status === 401 || answer.status === 403)) void this.recall();
    return answer.ok;
  }
}

export const commands = new Commands();
