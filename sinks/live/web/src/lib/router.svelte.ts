/** The route that the address names, for Svelte. Going somewhere is a link or `go`; the browser keeps the history. */

import { HOME, hrefOf, parseRoute, type Route } from "./route";

class Router {
  route = $state.raw<Route>(parseRoute(location.hash));
  /** Whether the reader came here from another place of the page, so that going back stays on it. */
  #hasPast = false;

  /** Follow the address; the returned function stops it. */
  start(): () => void {
    const follow = (): void => {
      this.#hasPast = true;
      this.route = parseRoute(location.hash);
    };
    window.addEventListener("hashchange", follow);
    return () => window.removeEventListener("hashchange", follow);
  }

  go(route: Route): void {
    location.hash = hrefOf(route);
  }

  /** Leave what was opened over the page: back where the reader came from, or home if a link led here. */
  leave(): void {
    if (this.#hasPast) history.back();
    else this.go(HOME);
  }
}

export const router = new Router();
