/** Where the reader is, as the address after `#` says it: so that a view can be linked to, and the back button works. Pure. */

export type Route =
  | { readonly view: "now" | "feed" | "health" }
  | { readonly view: "conditions"; readonly account?: string; readonly condition?: string }
  | { readonly view: "stock"; readonly code: string };

export const HOME: Route = { view: "now" };

/** Six letters or digits, as Kiwoom writes them. */
const CODE = /^[0-9A-Z]{6}$/;

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return ""; // A broken escape: no place of ours.
  }
}

/** The place a hash names; home for anything that is none. */
export function parseRoute(hash: string): Route {
  const [view = "", ...rest] = hash.replace(/^#\/?/, "").split("/").map(decoded);
  if (view === "feed" || view === "health") return { view };
  if (view === "conditions") {
    const [account, condition] = rest;
    return account && condition ? { view, account, condition } : { view };
  }
  const code = (rest[0] ?? "").toUpperCase();
  return view === "stock" && CODE.test(code) ? { view, code } : HOME;
}

/** The address of a place. */
export function hrefOf(route: Route): string {
  const parts: string[] = [route.view === "now" ? "" : route.view];
  if (route.view === "stock") parts.push(route.code);
  else if (route.view === "conditions" && route.account && route.condition) parts.push(route.account, route.condition);
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

export const stockHref = (code: string): string => hrefOf({ view: "stock", code });
