/**
 * The connection to the hub: an EventSource that does not give up.
 *
 * The browser resumes a broken stream by itself, with `Last-Event-ID`. This adds what it does not do: it opens a new one
 * when the browser has given up (the hub answered with an error), when an open one has gone silent (a line that died
 * without a word), and when what arrives cannot be read or does not fit – then it starts with a snapshot. What an
 * event means is for `store`.
 */

import { parseEventId, type Delta, type EventId, type Heartbeat, type Snapshot } from "./contract";
import { REOPEN_AFTER } from "./freshness";

export interface Listener {
  snapshot(snapshot: Snapshot): void;
  /** Returns false if the delta belongs to another epoch than the page holds: a snapshot is needed. */
  delta(id: EventId, delta: Delta): boolean;
  heartbeat(heartbeat: Heartbeat): void;
  /** The stream is broken; the next snapshot or delta mends it. `isRefused`: the hub answered, but not with a stream. */
  broken(isRefused: boolean): void;
}

/** What a stream needs of its surroundings; a test gives its own. */
export interface Surroundings {
  open(url: string): EventSource;
  setTimeout(callback: () => void, milliseconds: number): number;
  clearTimeout(handle: number): void;
}

const browser: Surroundings = {
  open: (url) => new EventSource(url),
  setTimeout: (callback, milliseconds) => window.setTimeout(callback, milliseconds),
  clearTimeout: (handle) => window.clearTimeout(handle),
};

const FIRST_RETRY = 500;
const LAST_RETRY = 8000;
const CLOSED = 2;

export class Stream {
  #source: EventSource | null = null;
  #retry: number | undefined;
  #silence: number | undefined;
  #wait = FIRST_RETRY;
  /** The id of the last event that fitted. A new stream names it, so that another hub tells nothing older. */
  #seen = "";

  constructor(
    private readonly url: string,
    private readonly listener: Listener,
    private readonly around: Surroundings = browser,
  ) {}

  /** Open the stream, or open it anew: the hub then tells what was missed, or sends a snapshot. */
  open(): void {
    this.close();
    const source = this.around.open(this.#seen === "" ? this.url : `${this.url}?after=${encodeURIComponent(this.#seen)}`);
    this.#source = source;
    const read = <T>(event: Event, apply: (value: T, id: string) => boolean | void): void => {
      if (source !== this.#source) return;
      const { data, lastEventId } = event as MessageEvent<string>;
      let fits: boolean | void;
      try {
        fits = apply(JSON.parse(data) as T, lastEventId);
      } catch (error) {
        console.error("Hitstream: an event that cannot be read; asking for a snapshot", error);
        fits = false;
      }
      if (fits === false) {
        this.#seen = ""; // What was missed cannot be told in a way that fits: a snapshot is needed.
        return this.#lost();
      }
      if (lastEventId !== "") this.#seen = lastEventId;
      this.#wait = FIRST_RETRY;
      this.#listenFor(REOPEN_AFTER);
    };
    source.addEventListener("snapshot", (event) =>
      read<Snapshot>(event, (snapshot) => this.listener.snapshot(snapshot)),
    );
    source.addEventListener("delta", (event) =>
      read<Delta>(event, (delta, lastEventId) => {
        const id = parseEventId(lastEventId);
        return id !== null && this.listener.delta(id, delta);
      }),
    );
    source.addEventListener("heartbeat", (event) =>
      read<Heartbeat>(event, (heartbeat) => this.listener.heartbeat(heartbeat)),
    );
    source.addEventListener("error", () => {
      if (source !== this.#source) return;
      if (source.readyState === CLOSED) this.#lost(true);
      else this.listener.broken(false);
    });
    // Connecting may hang as well: a proxy that accepts and never answers.
    this.#listenFor(REOPEN_AFTER * 2);
  }

  /** Open anew at once if a retry is being waited for: the network is back, or somebody looks at the page again. */
  hurry(): void {
    if (this.#retry !== undefined) this.open();
  }

  close(): void {
    this.around.clearTimeout(this.#retry ?? 0);
    this.around.clearTimeout(this.#silence ?? 0);
    this.#retry = this.#silence = undefined;
    this.#source?.close();
    this.#source = null;
  }

  #listenFor(milliseconds: number): void {
    this.around.clearTimeout(this.#silence ?? 0);
    this.#silence = this.around.setTimeout(() => this.#lost(), milliseconds);
  }

  #lost(isRefused = false): void {
    this.close();
    this.listener.broken(isRefused);
    this.#retry = this.around.setTimeout(() => this.open(), this.#wait);
    this.#wait = Math.min(LAST_RETRY, this.#wait * 2);
  }
}
