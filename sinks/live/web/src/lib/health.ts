/** What the state of every component means to the person watching, and which of it needs him. Pure. */

import { componentTone, conditionWord, isSilent, TONES, type Tone } from "./condition";
import type { Status } from "./contract";
import type { State } from "./store";
import { parse } from "./time";

/** The verdicts of a diagnosis that say that nothing is wrong, as `producers/kiwoom/doctor.py` has them. */
const GOOD_VERDICTS = new Set(["healthy", "quiet", "ready"]);

/** The words of a scheduled run that are no verdict. */
const RUN_TONES: Readonly<Record<string, Tone>> = {
  scheduled: "rest",
  running: "pending",
  done: "good",
  failed: "bad",
  missed: "bad",
  // Of the bars after the close:
  waiting: "pending",
  standby: "rest",
  partial: "pending",
  incomplete: "pending",
};

/** Kinds that say every few seconds how they are; a diagnosis does so only when it runs. */
const REPORTING: readonly Status["kind"][] = ["session", "subscription", "worker", "sink"];

/** Real milliseconds without progress after which a role that says `working` is stuck, if anything waits for it. */
export const STUCK_AFTER = 20_000;

/** Whether a worker or sink got nothing done of what waits for it, as `deploy/status_command.py` has it. */
function isStuck(status: Status, speed: number): boolean {
  const waits = (status.kind === "worker" || status.kind === "sink") && (status.figures?.["lag"] ?? 0) > 0;
  if (!waits || status.state !== "working" || !status.proof_of_life) return false;
  return (parse(status.at) - parse(status.proof_of_life)) / speed > STUCK_AFTER;
}

/**
 * The component's own word of its state – or `silent`, if it should have said how it is and has not, or `stuck`, if it
 * says that it works and does not.
 */
export function componentWord(status: Status, now: number, speed: number): string {
  const isOver = status.state === "stopped" || componentTone(status.state) === "bad";
  const isMute = REPORTING.includes(status.kind) && !isOver && isSilent(status, now, speed);
  if (isMute) return "silent";
  return isStuck(status, speed) ? "stuck" : status.state;
}

/** How good or bad a component's state is. */
export function statusTone(status: Status, now: number, speed: number): Tone {
  if (status.kind !== "diagnosis") return componentTone(componentWord(status, now, speed));
  const known = RUN_TONES[status.state];
  if (known) return known;
  const good = status.figures?.["good"];
  return good === undefined ? (GOOD_VERDICTS.has(status.state) ? "good" : "bad") : good > 0 ? "good" : "bad";
}

/** A scheduled search, told from the doctor by its condition. */
export const isSearch = (status: Status): boolean => status.kind === "diagnosis" && status.condition !== "";

/** How far the bars of a day are, told from the doctor by its name. */
export const isBars = (status: Status): boolean => status.kind === "diagnosis" && status.component.startsWith("bars/");

/** Stocks whose bars are there, of those that are wanted; null before a day was begun. */
export function completeness(status: Status): { readonly there: number; readonly wanted: number } | null {
  const { expected, fetched, empty } = status.figures ?? {};
  return expected ? { there: (fetched ?? 0) + (empty ?? 0), wanted: expected } : null;
}

/** Whether it is a search or the bars of a day in the course of their work, which nothing else waits for. */
const isAtWork = (status: Status): boolean =>
  (isSearch(status) || isBars(status)) && ["running", "waiting", "partial"].includes(status.state);

/** A moment among the figures (Unix seconds), in milliseconds; null if it is not there. */
export function moment(status: Status, name: "last" | "next"): number | null {
  const seconds = status.figures?.[name];
  return seconds === undefined ? null : seconds * 1000;
}

/** Figures that are shown in a way of their own, and not in the list. */
const SHOWN_OTHERWISE = new Set(["last", "next", "good", "quiet", "rows", "day", "expected"]);

/** What a component counts, as [name, value], by name. */
export function figures(status: Status): [string, number][] {
  return Object.entries(status.figures ?? {})
    .filter(([name]) => !SHOWN_OTHERWISE.has(name))
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

export interface Health {
  readonly tone: Tone;
  /** How many components, subscriptions and diagnoses are in trouble. */
  readonly troubles: number;
}

/** Market milliseconds after which one that has ended is no longer missed, as `hitstream status` has it. */
const FORGOTTEN_AFTER = 86_400_000;

/** What several producers of an account, or several processes of a role, have in common; null: it stands alone. */
function roleOf(status: Status): string | null {
  const parts = status.component.split("/");
  if (status.kind === "session") return `session/${parts[1] ?? ""}`;
  return status.kind === "worker" || status.kind === "sink" ? parts.slice(0, -1).join("/") || status.component : null;
}

/**
 * How good or bad each component is among the others, by its name. A process that has ended in order is no rest: what
 * its role does is not done, unless another one of the role works.
 */
export function componentTones(state: State, now: number): ReadonlyMap<string, Tone> {
  const statuses = [...state.components.values()].map((view) => view.status);
  const alone = new Map(statuses.map((status) => [status.component, statusTone(status, now, state.speed)]));
  const working = new Set(statuses.filter(({ component }) => alone.get(component) === "good").map(roleOf));
  const isMissed = (status: Status): boolean =>
    (status.kind === "worker" || status.kind === "sink") &&
    status.state === "stopped" &&
    now - parse(status.at) <= FORGOTTEN_AFTER &&
    !working.has(roleOf(status));
  return new Map(statuses.map((one) => [one.component, isMissed(one) ? "bad" : alone.get(one.component)!]));
}

/**
 * How everything is, in one lamp. What several producers keep open is in trouble only where none of them has it; a
 * session that has ended beside one that lives is a standby's trouble, and nobody's, and so is one of several workers –
 * unless it is stuck: it keeps its partitions, and nobody else takes what waits in them.
 */
export function health(state: State, now: number): Health {
  const tones: Tone[] = [];
  const roles = new Map<string, Tone[]>();
  const each = componentTones(state, now);
  for (const { status } of state.components.values()) {
    const tone = each.get(status.component)!;
    const role = componentWord(status, now, state.speed) === "stuck" ? null : roleOf(status);
    if (role === null) tones.push(isAtWork(status) ? "rest" : tone);
    else roles.set(role, [...(roles.get(role) ?? []), tone]);
  }
  for (const held of roles.values()) tones.push(...(held.includes("good") ? (["good"] as const) : held));
  for (const view of state.conditions.values()) tones.push(TONES[conditionWord(view, now, state.speed)]);
  const troubles = tones.filter((tone) => tone === "bad").length;
  const tone = troubles > 0 ? "bad" : tones.includes("pending") ? "pending" : tones.includes("good") ? "good" : "rest";
  return { tone: tones.length > 0 ? tone : "unknown", troubles };
}

export interface GapSpan {
  readonly id: string;
  readonly condition: string;
  readonly account: string;
  readonly from: number;
  readonly to: number;
  readonly cause: string;
}

/** Today's gaps, the latest first. */
export function gapsOf(state: State): GapSpan[] {
  return [...state.gaps.values()]
    .map(({ gap }) => ({
      id: gap.id,
      condition: gap.condition,
      account: gap.account,
      from: parse(gap.from),
      to: parse(gap.to),
      cause: gap.cause,
    }))
    .sort((a, b) => b.to - a.to || (a.condition < b.condition ? -1 : 1));
}
