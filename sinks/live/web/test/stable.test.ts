import { expect, test } from "vitest";
import { stable } from "../src/lib/stable";

test("a list that says the same is the same list; any change makes another", () => {
  const keep = stable<object>();
  const [a, b] = [{}, {}];
  const first = keep([a, b]);
  expect(keep([a, b])).toBe(first);
  expect(keep([b, a])).not.toBe(first);
  expect(keep([a])).toEqual([a]);
  expect(keep([])).toEqual([]);
});
