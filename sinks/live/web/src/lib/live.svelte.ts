/**
 * The live state as Svelte sees it: the shell around `store`, `stream` and `freshness`.
 *
 * Events are applied as they come and shown once per animation frame, so that a hundred changes a second cost sixty
 * drawings at most; a hidden page has no frames and is brought up to date by a timer, for the sake of its title.
 */

import { connectionState, type Connection } from "./freshness";
import { applyDelta, applyHeartbeat, applySnapshot, type State } from "./store";
import { Stream } from "./stream";
import { extrapolate, untilNextSecond } from "./time";

/** Steady while awake, and honest about sleep: a laptop that slept must not call its figures current. */
const steady = (): number => performance.now();
const wall = (): number => Date.now();

export class Live {
  /** What the screen shows; null until the first snapshot. */
  state = $state.raw<State | null>(null);
  connection = $state.raw<Connection>("connecting");
  /** The market's clock, in milliseconds since 1970; stands still while stale. */
  now = $state.raw(0);
  /** Real seconds since the hub was last heard, for the banner. */
  silentFor = $state.raw(0);
  /** Whether the very first connection keeps failing. */
  unreachable = $state.raw(false);

  #latest: State | null = null;
  #heard = { steady: -Infinity, wall: -Infinity };
  #broken = false;
  #scheduled = false;

  readonly #stream: Stream;

  constructor(url: string) {
    this.#stream = new Stream(url, {
      snapshot: (snapshot) => this.#hear(applySnapshot(this.#latest, snapshot, steady())),
      delta: (id, delta) => {
        if (this.#latest === null || this.#latest.epoch !== id.epoch) return false;
        this.#hear(applyDelta(this.#latest, id, delta, steady()));
        return true;
      },
      heartbeat: (heartbeat) => this.#hear(this.#latest && applyHeartbeat(this.#latest, heartbeat.now, steady())),
      broken: () => {
        this.#broken = true;
        this.unreachable = this.#latest === null;
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
      if (document.hidden) return;
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

  #hear(state: State | null): void {
    this.#latest = state;
    this.#heard = { steady: steady(), wall: wall() };
    this.#broken = this.unreachable = false;
    if (this.#scheduled) return;
    this.#scheduled = true;
    const show = (): void => {
      this.#scheduled = false;
      this.#show();
    };
    if (document.hidden) window.setTimeout(show, 250);
    else window.requestAnimationFrame(show);
  }

  #show(): void {
    const first = this.state === null;
    this.state = this.#latest;
    if (this.connection !== "live") this.#judge();
    if (first) this.#tellTime();
  }

  #age(): number {
    return Math.max(steady() - this.#heard.steady, wall() - this.#heard.wall);
  }

  #judge(): void {
    const age = this.#age();
    // What has arrived but not been drawn yet does not make the screen current.
    this.connection = connectionState(this.state !== null, this.#broken, age);
    this.silentFor = this.connection === "stale" ? Math.floor(age / 1000) : 0;
  }

  #tellTime(): void {
    const latest = this.#latest;
    if (latest === null || this.connection === "stale") return;
    this.now = extrapolate(latest.now, steady() - latest.received, latest.speed);
  }
}
