/**
 * Which of what has just come is worth a sound or a notification. Pure: the clock is handed in.
 *
 * Only what happened now calls: not the day's first list, not what a list after a gap shows, not what came while the page
 * caught up after a break. Per (stock, condition) it calls once within the cool-down.
 */

import type { FeedEntry } from "./store";
import { parse } from "./time";

export interface AlertRule {
  readonly sound: boolean;
  readonly desktop: boolean;
  /** Real seconds in which the same stock calls only once for this condition. */
  readonly cooldown: number;
}

export const SILENT_RULE: AlertRule = { sound: false, desktop: false, cooldown: 300 };

/** Market milliseconds after which a hit that arrives is history. */
const LATE_AFTER = 30_000;

/** How many calls are remembered. */
const REMEMBERED = 2000;

export interface Call {
  readonly entry: FeedEntry;
  readonly rule: AlertRule;
}

/** What called when, by (condition, stock). */
export class Cooldowns {
  readonly #called = new Map<string, number>();

  /**
   * The hits among `fresh` (newest first, as the feed has them) that call, oldest first.
   *
   * @param rules by condition's name; a condition that is not there is silent
   * @param marketNow the market's clock, which runs `speed` times as fast as `steadyNow`, both in milliseconds
   */
  callsOf(
    fresh: readonly FeedEntry[],
    rules: Readonly<Record<string, AlertRule>>,
    marketNow: number,
    speed: number,
    steadyNow: number,
  ): Call[] {
    const calls: Call[] = [];
    for (const entry of [...fresh].reverse()) {
      const { transition } = entry.item;
      const rule = rules[transition.condition];
      if (!rule || !(rule.sound || rule.desktop)) continue;
      if (transition.kind !== "entered" || transition.origin !== "realtime" || transition.initial) continue;
      if (entry.arrived === null || marketNow - parse(transition.at) > LATE_AFTER * Math.max(1, speed)) continue;
      const key = `${transition.account}/${transition.condition}/${transition.code}`;
      const last = this.#called.get(key);
      if (last !== undefined && steadyNow - last < rule.cooldown * 1000) continue;
      this.#called.delete(key); // so that the oldest stand first
      this.#called.set(key, steadyNow);
      if (this.#called.size > REMEMBERED) this.#called.delete(this.#called.keys().next().value!);
      calls.push({ entry, rule });
    }
    return calls;
  }

  get size(): number {
    return this.#called.size;
  }
}
