/**
 * The order of the open recommendations as it is shown: by rank, but calmly.
 *
 * A new recommendation takes its place at once. Scores that merely change re-order the list once a second at most, and
 * not at all while a mouse points at it: a row must not slip away under the hand.
 */

import { holdOrder, type RecommendationEntry } from "./store";

const SETTLE = 1000;

const idOf = (entry: RecommendationEntry): string => entry.view.recommendation.recommendation_id;

export class Ranking {
  #order = $state.raw<readonly string[]>([]);
  #isHeld = $state(false);
  #settled = -Infinity;
  #later: number | undefined;

  constructor(private readonly open: () => readonly RecommendationEntry[]) {
    $effect.pre(() => {
      const ranked = this.open();
      if (this.#isHeld) return;
      const known = new Set(this.#order);
      const wait = this.#settled + SETTLE - performance.now();
      if (wait <= 0 || ranked.some((entry) => !known.has(idOf(entry)))) this.#settle();
      else this.#later ??= window.setTimeout(() => this.#settle(), wait);
    });
    $effect(() => () => window.clearTimeout(this.#later));
  }

  readonly shown: readonly RecommendationEntry[] = $derived.by(() => holdOrder(this.open(), this.#order));

  /** Whether a hand on the list keeps it from being in rank order. */
  readonly isHeldBack: boolean = $derived.by(
    () => this.#isHeld && this.shown.some((entry, index) => entry !== this.open()[index]),
  );

  hold(): void {
    this.#isHeld = true;
  }

  release(): void {
    this.#isHeld = false;
    this.#settle();
  }

  #settle(): void {
    window.clearTimeout(this.#later);
    this.#later = undefined;
    if (this.#isHeld) return;
    this.#settled = performance.now();
    const order = this.open().map(idOf);
    if (order.length !== this.#order.length || order.some((id, index) => id !== this.#order[index])) this.#order = order;
  }
}
