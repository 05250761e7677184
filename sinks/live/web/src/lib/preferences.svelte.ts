/** Language and theme: the reader's choice, kept in this browser. */

import { WORDS, type Language, type Words } from "./words";

export type Theme = "system" | "light" | "dark";

const THEMES: readonly Theme[] = ["system", "light", "dark"];

function recall(key: string): string | null {
  try {
    return localStorage.getItem(`hitstream.${key}`);
  } catch {
    return null; // Storage is switched off.
  }
}

function remember(key: string, value: string): void {
  try {
    localStorage.setItem(`hitstream.${key}`, value);
  } catch {
    // Storage is switched off: the choice lasts as long as the page.
  }
}

class Preferences {
  language = $state<Language>(recall("lang") === "en" ? "en" : "ko");
  theme = $state<Theme>(THEMES.find((theme) => theme === recall("theme")) ?? "system");

  get words(): Words {
    return WORDS[this.language];
  }

  switchLanguage(): void {
    this.language = this.language === "ko" ? "en" : "ko";
    remember("lang", this.language);
  }

  nextTheme(): void {
    this.theme = THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length]!;
    remember("theme", this.theme);
  }

  /** Put the choice on the document; call in an effect. */
  apply(): void {
    const root = document.documentElement;
    root.lang = this.language;
    if (this.theme === "system") delete root.dataset["theme"];
    else root.dataset["theme"] = this.theme;
  }
}

export const preferences = new Preferences();
