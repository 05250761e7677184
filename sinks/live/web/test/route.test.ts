import { describe, expect, test } from "vitest";
import { hrefOf, parseRoute, type Route } from "../src/lib/route";

describe("an address", () => {
  test.each([
    { view: "now" },
    { view: "feed" },
    { view: "health" },
    { view: "conditions" },
    { view: "conditions", account: "main", condition: "신고가/돌파 50%?#" },
    { view: "stock", code: "0004V0" },
  ] as Route[])("leads back to where it came from: %j", (route) => expect(parseRoute(hrefOf(route))).toEqual(route));

  test.each(["", "#", "#/", "#nonsense", "#/stock", "#/stock/12", "#/stock/<script>", "#/%E0%A4%A"])(
    "%j leads home",
    (hash) => expect(parseRoute(hash)).toEqual({ view: "now" }),
  );
  test("a code may be typed in small letters", () => expect(parseRoute("#/stock/0004v0")).toEqual({ view: "stock", code: "0004V0" }));
  test("a condition without an account is all conditions", () => expect(parseRoute("#/conditions/main")).toEqual({ view: "conditions" }));
});
