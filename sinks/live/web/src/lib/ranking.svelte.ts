/**
 * The order of the open recommendations as it is shown: by rank, but calmly.
 *
 * A new recommendation takes its place at once. Scores and prices that merely change re-order the list once a second at
 * most, and not at all while a mouse points at it or the keyboard is in it: a row must not slip away under the hand. What
 * comes meanwhile follows below, what closes meanwhile stays where it was, as closed.
 */

import { stable } from "./stable";
import { holdOrder, type RecommendationEntry } from "./store";

const SETTLE = 1000;

const idOf = (entry: RecommendationEntry): string => entry.view.recommendation.recommendation_id;

export type Hand = "pointer" | "focus";

export class Ranking {
  #order = $state.raw<readonly string[]>([]);
  #hands = $state.raw<ReadonlySet<Hand>>(new Set());
  readonly #same = stable<string>();
  #settled = -Infinity;
  #wish: string;
  #later: number | undefined;

  /**
   * @param ranked what is shown, in the order that is right now
   * @param find an entry that is shown no more, by its id
   * @param wish what the reader has asked for (filter, sort): where it changes, the order follows at once
   */
  constructor(
    private readonly ranked: () => readonly RecommendationEntry[],
    private readonly find: (id: string) => RecommendationEntry | undefined,
    private readonly wish: () => string,
  ) {
    this.#wish = wish();
    $effect.pre(() => {
      const ranked = this.ranked();
      const isAsked = this.wish() !== this.#wish;
      this.#wish = this.wish();
      if (isAsked) this.#settle();
      if (this.#isHeld) return;
      const known = new Set(this.#order);
      const wait = this.#settled + SETTLE - performance.now();
      if (wait <= 0 || ranked.some((entry) => !known.has(idOf(entry)))) this.#settle();
      else this.#later ??= window.setTimeout(() => this.#isHeld || this.#settle(), wait);
    });
    $effect(() => () => window.clearTimeout(this.#later));
  }

  readonly #isHeld: boolean = $derived.by(() => this.#hands.size > 0);

  readonly shown: readonly RecommendationEntry[] = $derived.by(() =>
    holdOrder(this.ranked(), this.#order, this.#isHeld ? this.find : undefined),
  );

  /** Whether a hand on the list keeps it from being in its right order. */
  readonly isHeldBack: boolean = $derived.by(() => {
    const ranked = this.ranked();
    return this.#isHeld && this.shown.some((entry, index) => entry !== ranked[index]);
  });

  hold(hand: Hand): void {
    if (!this.#hands.has(hand)) this.#hands = new Set([...this.#hands, hand]);
  }

  release(hand: Hand): void {
    if (!this.#hands.has(hand)) return;
    this.#hands = new Set([...this.#hands].filter((other) => other !== hand));
    if (!this.#isHeld) this.#settle();
  }

  #settle(): void {
    window.clearTimeout(this.#later);
    this.#later = undefined;
    this.#settled = performance.now();
    this.#order = this.#same(this.ranked().map(idOf));
  }
}
