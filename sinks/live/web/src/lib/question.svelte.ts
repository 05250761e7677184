/** An answer of the API that is asked for again while it is looked at. */

import { ask, type Answer } from "./api";

/** Milliseconds between two questions of one kind at least. */
const LEAST = 1000;

export class Question<T> {
  /** The last good answer; null until there is one for what is asked now. */
  value = $state.raw<T | null>(null);
  /** Why there is none, or why it could not be renewed; null where all is well. */
  problem = $state.raw<Extract<Answer<T>, { ok: false }> | null>(null);
  #cancel: AbortController | null = null;
  #address = "";
  #asked = -Infinity;
  #later: number | undefined;

  /** Ask, now or as soon as the last time is long enough ago. Another address forgets the answer of the one before. */
  ask(path: string, query: Readonly<Record<string, string>> = {}): void {
    const address = `${path}?${JSON.stringify(query)}`;
    if (address !== this.#address) {
      this.#address = address;
      this.value = null;
      this.problem = null;
      this.#asked = -Infinity;
    }
    window.clearTimeout(this.#later);
    const wait = this.#asked + LEAST - performance.now();
    if (wait > 0) this.#later = window.setTimeout(() => void this.#send(path, query), wait);
    else void this.#send(path, query);
  }

  /** Ask now, and again every so many milliseconds; the returned function ends that. */
  keepAsking(milliseconds: number, path: string, query: Readonly<Record<string, string>> = {}): () => void {
    this.ask(path, query);
    const timer = window.setInterval(() => this.ask(path, query), milliseconds);
    return () => window.clearInterval(timer);
  }

  /** Nobody looks any more. */
  stop(): void {
    window.clearTimeout(this.#later);
    this.#cancel?.abort();
  }

  async #send(path: string, query: Readonly<Record<string, string>>): Promise<void> {
    this.#asked = performance.now();
    this.#cancel?.abort();
    const cancel = (this.#cancel = new AbortController());
    const answer = await ask<T>(path, query, cancel.signal);
    if (cancel.signal.aborted) return;
    if (answer.ok) {
      this.value = answer.value;
      this.problem = null;
    } else this.problem = answer;
  }
}
