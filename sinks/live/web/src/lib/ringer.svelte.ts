/**
 * Sound and desktop notifications: the shell around `alerts`.
 *
 * Nothing is asked of the reader unasked: the permission and the audio come with the press of a switch in the settings.
 */

import { Cooldowns } from "./alerts";
import { preferences } from "./preferences.svelte";
import { stockHref } from "./route";
import type { FeedEntry, State } from "./store";
import { kstTime, parse } from "./time";

/** Notifications of one look at the feed; a burst of hits is one sound and these. */
const SHOWN_AT_ONCE = 3;

export type Permission = "default" | "granted" | "denied" | "unsupported";

const permissionNow = (): Permission => ("Notification" in window ? Notification.permission : "unsupported");

class Ringer {
  permission = $state.raw<Permission>(permissionNow());
  #audio: AudioContext | null = null;
  #seen = Number.MAX_SAFE_INTEGER;
  readonly #cooldowns = new Cooldowns();

  /** Whether any condition wants a sound: after a reload the browser lets it be heard only once the page was pressed. */
  readonly #wantsSound = (): boolean => Object.values(preferences.alerts).some((rule) => rule.sound);

  /** Make the sound possible; call when the reader presses something. */
  arm(): void {
    if (this.#audio?.state === "running" || !this.#wantsSound()) return;
    this.#audio ??= new AudioContext();
    void this.#audio.resume();
  }

  /** Ask for the permission to notify; call when the reader has pressed a switch for it. */
  async askPermission(): Promise<void> {
    if (permissionNow() === "default") await Notification.requestPermission();
    this.permission = permissionNow();
  }

  /** Call the reader for what came since the last look. */
  look(state: State, now: number): void {
    const newest = state.feed[0]?.order ?? 0;
    const from = this.#seen;
    this.#seen = newest;
    if (newest <= from || Object.keys(preferences.alerts).length === 0) return;
    const fresh: FeedEntry[] = [];
    for (const entry of state.feed) {
      if (entry.order <= from) break;
      fresh.push(entry);
    }
    const calls = this.#cooldowns.callsOf(fresh, preferences.alerts, now, state.speed, performance.now());
    if (calls.some(({ rule }) => rule.sound)) this.sound();
    for (const { entry } of calls.filter(({ rule }) => rule.desktop).slice(-SHOWN_AT_ONCE)) this.#notify(entry);
  }

  /** Two short tones, as far as the browser lets them be heard. */
  sound(): void {
    const audio = this.#audio;
    if (audio?.state !== "running") return;
    for (const [after, pitch] of [[0, 880], [0.13, 1175]] as const) {
      const tone = audio.createOscillator();
      const volume = audio.createGain();
      const at = audio.currentTime + after;
      tone.frequency.value = pitch;
      volume.gain.setValueAtTime(0, at);
      volume.gain.linearRampToValueAtTime(0.2, at + 0.015);
      volume.gain.exponentialRampToValueAtTime(0.001, at + 0.22);
      tone.connect(volume).connect(audio.destination);
      tone.start(at);
      tone.stop(at + 0.24);
    }
  }

  #notify(entry: FeedEntry): void {
    if (permissionNow() !== "granted") return;
    const { name, transition } = entry.item;
    const t = preferences.words;
    const body = [transition.condition, kstTime(parse(transition.at))];
    if (transition.entry > 1) body.push(t.reentry(transition.entry - 1));
    try {
      const shown = new Notification(`${t.kind.entered} ${name || transition.code}`, {
        body: body.join(" · "),
        tag: `hitstream/${transition.condition}/${transition.code}`,
        lang: preferences.language,
      });
      shown.onclick = () => {
        window.focus();
        location.hash = stockHref(transition.code);
        shown.close();
      };
    } catch {
      // Some phones notify through a service worker only; the sound and the page remain.
      this.permission = "unsupported";
    }
  }
}

export const ringer = new Ringer();
