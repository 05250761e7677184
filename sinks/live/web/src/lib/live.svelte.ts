/**
 * The live state as Svelte sees it: the shell around `store`, `stream` and `freshness`.
 *
 * Events are applied as they come. The first after a quiet moment is drawn with the next animation frame, those that
 * follow at most twenty times a second, and less often where drawing is slow: three quarters of the time belong to the
 * reader's hands. A hidden page has no frames and is brought up to date by a timer, for the sake of its title.
 */

import { ask } from "./api";
import { connectionState, type Connection } from "./freshness";
import { applyDelta, applyHeartbeat, applySnapshot, hubTrouble, type State } from "./store";
import { Stream } from "./stream";
import { extrapolate, untilNextSecond } from "./time";

/** Steady while awake, and honest about sleep: a laptop that slept must not call its figures current. */
const steady = (): number => performance.now();
const wall = (): number => Date.now();

/** Milliseconds between two drawings under load: the least, and the most where one drawing takes long. */
const DRAW_INTERVAL = { least: 50, most: 250 };

export class Live {
  /** What the screen shows; null until the first snapshot. */
  state = $state.raw<State | null>(null);
  connection = $state.raw<Connection>("connecting");
  /** The market's clock, in milliseconds since 1970; stands still while stale. */
  now = $state.raw(0);
  /** Real seconds since the hub was last heard, for the banner. */
  silentFor = $state.raw(0);
  /** What stands in the way before the first snapshot, or of getting back. */
  obstacle = $state.raw<"none" | "unreachable" | "rebuilding" | "login">("none");

  #latest: State | null = null;
  #heard = { steady: -Infinity, wall: -Infinity };
  #broken = false;
  #scheduled = false;
  #shown = -Infinity;
  #cost = 0;

  readonly #stream: Stream;

  constructor(url: string) {
    this.#stream = new Stream(url, {
      snapshot: (snapshot) => this.#bringUpToDate(applySnapshot(this.#latest, snapshot, steady())),
      delta: (id, delta) => {
        if (this.#latest === null || this.#latest.epoch !== id.epoch) return false;
        this.#bringUpToDate(applyDelta(this.#latest, id, delta, steady()));
        return true;
      },
      heartbeat: (heartbeat) => this.#beat(heartbeat.now),
      broken: (isRefused) => {
        this.#broken = true;
        this.obstacle = "unreachable";
        if (isRefused) void this.#askWhy();
        this.#judge();
      },
    });
  }

  /** Start; the returned function stops everything. */
  start(): () => void {
    this.#stream.open();
    const watch = window.setInterval(() => this.#judge(), 200);
    let tick = 0;
    const tock = (): void => {
      this.#tellTime();
      tick = window.setTimeout(tock, this.state ? untilNextSecond(this.now, this.state.speed) : 1000);
    };
    tock();
    const back = (): void => {
      if (document.hidden) {
        this.#scheduled = false; // The frame that was asked for does not come.
        return;
      }
      this.#judge();
      this.#show();
      this.#tellTime();
      this.#stream.hurry();
    };
    document.addEventListener("visibilitychange", back);
    window.addEventListener("online", back);
    return () => {
      this.#stream.close();
      window.clearInterval(watch);
      window.clearTimeout(tick);
      document.removeEventListener("visibilitychange", back);
      window.removeEventListener("online", back);
    };
  }

  #bringUpToDate(state: State): void {
    this.#latest = state;
    this.#heard = { steady: steady(), wall: wall() };
    this.#broken = false;
    this.obstacle = "none";
    this.#scheduleShow();
  }

  /** A heartbeat keeps alive what is up to date; after a break it does not make it so: the hub may still be reading. */
  #beat(now: string): void {
    if (this.#latest === null || this.#broken) {
      this.obstacle = "rebuilding";
      return;
    }
    this.#latest = applyHeartbeat(this.#latest, now, steady());
    this.#heard = { steady: steady(), wall: wall() };
    this.#scheduleShow();
  }

  /** An EventSource does not say why it was refused; a login that has ended is the one cause a reader can mend. */
  async #askWhy(): Promise<void> {
    const answer = await ask("status");
    if (!answer.ok && answer.status === 401 && this.#broken) this.obstacle = "login";
  }

  #scheduleShow(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const show = (): void => {
      this.#scheduled = false;
      const began = steady();
      this.#show();
      // A timer set in a frame fires when the frame has been drawn.
      window.setTimeout(() => (this.#cost = steady() - began));
    };
    const interval = Math.min(DRAW_INTERVAL.most, Math.max(DRAW_INTERVAL.least, 4 * this.#cost));
    const wait = this.#shown + interval - steady();
    if (document.hidden) window.setTimeout(show, 250);
    else if (wait > 0) window.setTimeout(() => window.requestAnimationFrame(show), wait);
    else window.requestAnimationFrame(show);
  }

  #show(): void {
    const first = this.state === null;
    this.#shown = steady();
    this.state = this.#latest;
    this.#judge();
    if (first) this.#tellTime();
  }

  #age(): number {
    return Math.max(steady() - this.#heard.steady, wall() - this.#heard.wall);
  }

  #judge(): void {
    const age = this.#age();
    const trouble = this.state && hubTrouble(this.state);
    // What has arrived but not been drawn yet does not make the screen current.
    this.connection = connectionState(this.state !== null, this.#broken || trouble !== null, age);
    this.silentFor = this.connection === "stale" ? Math.floor(age / 1000) : 0;
  }

  #tellTime(): void {
    const latest = this.#latest;
    // What is stale has its time stand still – but a page that was opened during an outage has none yet.
    if (latest === null || (this.connection === "stale" && this.now !== 0)) return;
    this.now = extrapolate(latest.now, steady() - latest.received, latest.speed);
  }
}
