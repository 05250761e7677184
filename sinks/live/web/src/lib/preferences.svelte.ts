/** What the reader has chosen – language, theme, colours, pins, keys, alerts –, kept in this browser. */

import { SILENT_RULE, type AlertRule } from "./alerts";
import { WORDS, type Language, type Words } from "./words";

export type Theme = "system" | "light" | "dark";

export const THEMES: readonly Theme[] = ["system", "light", "dark"];

/** Which colour is up: red (Korea), green (elsewhere), or two that nobody confuses. A sign and a shape always say it too. */
export type Colours = "korean" | "western" | "safe";

export const COLOURS: readonly Colours[] = ["korean", "western", "safe"];

/** Pins that are kept. */
const PIN_LIMIT = 100;

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

/** What was remembered as JSON, if it is of the right shape. */
function recallJson<T>(key: string, isRight: (value: unknown) => value is T, otherwise: T): T {
  try {
    const value: unknown = JSON.parse(recall(key) ?? "null");
    return isRight(value) ? value : otherwise;
  } catch {
    return otherwise;
  }
}

const isStrings = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((each) => typeof each === "string");

const isRules = (value: unknown): value is Record<string, AlertRule> =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  Object.values(value as Record<string, Partial<AlertRule> | null>).every(
    (rule) => typeof rule?.sound === "boolean" && typeof rule.desktop === "boolean" && typeof rule.cooldown === "number",
  );

class Preferences {
  language = $state<Language>(recall("lang") === "en" ? "en" : "ko");
  theme = $state<Theme>(THEMES.find((theme) => theme === recall("theme")) ?? "system");

  colours = $state<Colours>(COLOURS.find((colours) => colours === recall("colours")) ?? "korean");
  /** Whether single keys do something (`?` tells which). */
  hasKeys = $state(recall("keys") !== "off");
  /** Codes that stand above all others. */
  pins = $state.raw<ReadonlySet<string>>(new Set(recallJson("pins", isStrings, [])));
  /** What calls the reader, by condition. */
  alerts = $state.raw<Readonly<Record<string, AlertRule>>>(recallJson("alerts", isRules, {}));

  get words(): Words {
    return WORDS[this.language];
  }

  switchLanguage(): void {
    this.language = this.language === "ko" ? "en" : "ko";
    remember("lang", this.language);
  }

  nextTheme(): void {
    this.chooseTheme(THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length]!);
  }

  chooseTheme(theme: Theme): void {
    this.theme = theme;
    remember("theme", theme);
  }

  chooseColours(colours: Colours): void {
    this.colours = colours;
    remember("colours", colours);
  }

  switchKeys(): void {
    this.hasKeys = !this.hasKeys;
    remember("keys", this.hasKeys ? "on" : "off");
  }

  togglePin(code: string): void {
    const pins = new Set(this.pins);
    if (!pins.delete(code)) pins.add(code);
    this.pins = new Set([...pins].slice(-PIN_LIMIT));
    remember("pins", JSON.stringify([...this.pins]));
  }

  changeAlert(condition: string, change: Partial<AlertRule>): void {
    const rule = { ...(this.alerts[condition] ?? SILENT_RULE), ...change };
    this.alerts = { ...this.alerts, [condition]: rule };
    remember("alerts", JSON.stringify(this.alerts));
  }

  /** Put the choice on the document; call in an effect that runs before those which draw. */
  apply(): void {
    const root = document.documentElement;
    root.lang = this.language;
    root.dataset["colours"] = this.colours;
    if (this.theme === "system") delete root.dataset["theme"];
    else root.dataset["theme"] = this.theme;
  }
}

export const preferences = new Preferences();
