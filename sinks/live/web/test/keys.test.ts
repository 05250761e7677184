import { describe, expect, test } from "vitest";
import { actionOf, KEYS, type Pressed } from "../src/lib/keys";

const pressed = (key: string, over: Partial<Pressed> = {}): Pressed => ({
  key,
  code: "",
  ctrlKey: false,
  metaKey: false,
  altKey: false,
  isComposing: false,
  ...over,
});

describe("a single key", () => {
  test("does one thing each", () => expect(new Set(KEYS.map(([key]) => key)).size).toBe(KEYS.length));
  test.each(KEYS)("%s is %s", (key, action) => expect(actionOf(pressed(key))).toBe(action));
  test("does the same with a Korean input method, which gives a jamo", () => {
    expect(actionOf(pressed("ㅓ", { code: "KeyJ" }))).toBe("next");
    expect(actionOf(pressed("Process", { code: "KeyR" }))).toBe("recommend");
  });
  test.each([{ ctrlKey: true }, { metaKey: true }, { altKey: true }, { isComposing: true }])(
    "belongs to the browser or the input method with %j",
    (over) => expect(actionOf(pressed("r", { code: "KeyR", ...over }))).toBeNull(),
  );
  test("that nobody knows does nothing", () => expect(actionOf(pressed("x", { code: "KeyX" }))).toBeNull());
});
