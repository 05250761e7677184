import { describe, expect, test } from "vitest";
import { followUp, SHOWN_AFTER, UNANSWERED_AFTER, withChange, withNew, type Sent } from "../src/lib/commands";
import { applySnapshot, type State } from "../src/lib/store";
import { recommendation, snapshot } from "./samples";

const sent = (over: Partial<Sent> = {}): Sent => ({
  request: "q1",
  kind: "recommend",
  code: "005930",
  note: "",
  at: 0,
  changed: 0,
  state: "sent",
  id: "c1",
  error: "",
  ...over,
});
const state = (cause: string): State =>
  applySnapshot(null, snapshot({ recommendations: [recommendation({ cause_id: cause })] }), 0);

describe("a command", () => {
  test("is done only when a recommendation names it as its cause", () => {
    expect(followUp([sent()], state("c1"), 1)[0]!.state).toBe("done");
    expect(followUp([sent()], state("other"), 1)[0]!.state).toBe("sent");
  });
  test("that has not come back in time is said to be unanswered, and done if it comes later", () => {
    const late = followUp([sent()], state("other"), UNANSWERED_AFTER);
    expect(late[0]!.state).toBe("unanswered");
    expect(followUp(late, state("c1"), UNANSWERED_AFTER + 1)[0]!.state).toBe("done");
  });
  test("that is still being sent waits for the server's word", () =>
    expect(followUp([sent({ state: "sending", id: "" })], state(""), UNANSWERED_AFTER)[0]!.state).toBe("sending"));
  test("that is over goes after a while; one that is not stays", () => {
    const over = sent({ state: "done" });
    expect(followUp([over, sent({ request: "q2" })], state(""), SHOWN_AFTER).map((each) => each.request)).toEqual(["q2"]);
  });
  test("changes nothing where nothing changes: the same list comes back", () => {
    const all = [sent()];
    expect(followUp(all, state("other"), 1)).toBe(all);
  });
});

test("only the newest commands are kept", () => {
  let all: readonly Sent[] = [];
  for (let n = 0; n < 50; n++) all = withNew(all, sent({ request: String(n) }));
  expect(all).toHaveLength(20);
  expect(all[0]!.request).toBe("49");
  expect(withChange(all, "49", { state: "refused", error: "no" })[0]).toMatchObject({ state: "refused", error: "no" });
});
