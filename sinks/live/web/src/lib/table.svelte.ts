/** What the reader has asked of the table of recommendations; it outlives the view, so that coming back finds it as it was. */

import { FIRST_DESCENDING, type Sort } from "./ranked";

class Table {
  typed = $state("");
  condition = $state("");
  sort = $state.raw<Sort>("score");
  isDescending = $state(true);
  scrolled = 0;

  sortBy(sort: Sort): void {
    this.isDescending = this.sort === sort ? !this.isDescending : FIRST_DESCENDING[sort];
    this.sort = sort;
  }

  reset(): void {
    this.typed = this.condition = "";
  }
}

export const table = new Table();
