/** The page's colours for what is drawn on a canvas, which knows no variables. */

import { MediaQuery } from "svelte/reactivity";
import { preferences } from "./preferences.svelte";

const isDark = new MediaQuery("(prefers-color-scheme: dark)");

/** Lets the effect that calls it run again when the page's colours become others. */
export const followColours = (): void => void [preferences.theme, preferences.colours, isDark.current];

/** What `read` makes of the page's colours where `element` stands, each asked for by its name in `app.css`. */
export function withColours<T>(element: HTMLElement, read: (colour: (name: string) => string) => T): T {
  const probe = document.createElement("span");
  probe.hidden = true;
  element.append(probe);
  const made = read((name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  });
  probe.remove();
  return made;
}
