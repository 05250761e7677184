import { beforeEach, describe, expect, it, vi } from "vitest";
import { REOPEN_AFTER } from "../src/lib/freshness";
import { Stream, type Listener, type Surroundings } from "../src/lib/stream";
import { at, delta, snapshot } from "./samples";

/** An EventSource whose server is the test. */
class Source extends EventTarget {
  static all: Source[] = [];
  readyState = 0;
  constructor(readonly url: string) {
    super();
    Source.all.push(this);
  }
  close(): void {
    this.readyState = 2;
  }
  say(type: string, value: unknown, lastEventId = ""): void {
    const data = typeof value === "string" ? value : JSON.stringify(value);
    this.dispatchEvent(new MessageEvent(type, { data, lastEventId }));
  }
  fail(readyState: number): void {
    this.readyState = readyState;
    this.dispatchEvent(new Event("error"));
  }
}

const around: Surroundings = {
  open: (url) => new Source(url) as unknown as EventSource,
  setTimeout: (callback, milliseconds) => setTimeout(callback, milliseconds) as unknown as number,
  clearTimeout: (handle) => clearTimeout(handle),
};

let heard: unknown[];
let takesDeltas: boolean;
let stream: Stream;
const newest = () => Source.all.at(-1)!;

beforeEach(() => {
  vi.useFakeTimers();
  Source.all = [];
  heard = [];
  takesDeltas = true;
  const listener: Listener = {
    snapshot: (value) => void heard.push(["snapshot", value.number]),
    delta: (id) => (heard.push(["delta", id]), takesDeltas),
    heartbeat: (value) => void heard.push(["heartbeat", value.now]),
    broken: (isRefused) => void heard.push(["broken", isRefused]),
  };
  stream = new Stream("/api/live", listener, around);
  stream.open();
  return () => {
    stream.close();
    vi.useRealTimers();
  };
});

describe("a stream", () => {
  it("passes on what the hub says", () => {
    newest().say("snapshot", snapshot(), "e-10");
    newest().say("delta", delta(), "e-12");
    newest().say("heartbeat", { now: at(1) });
    expect(heard).toEqual([
      ["snapshot", 10],
      ["delta", { epoch: "e", number: 12 }],
      ["heartbeat", at(1)],
    ]);
  });

  it("leaves a short break to the browser, which resumes by itself", () => {
    newest().fail(0);
    vi.advanceTimersByTime(3000);
    expect(heard).toEqual([["broken", false]]);
    expect(Source.all).toHaveLength(1);
  });

  it("opens a new one when the browser gives up, waiting longer each time, and at most 8 s", () => {
    const waits: number[] = [];
    for (let attempt = 0; attempt < 7; attempt++) {
      newest().fail(2);
      const opened = Source.all.length;
      let waited = 0;
      for (; Source.all.length === opened; waited += 500) vi.advanceTimersByTime(500);
      waits.push(waited);
    }
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 8000, 8000]);
    expect(heard.every((item) => (item as [string, boolean])[1])).toBe(true);
  });

  it("waits shortly again once it has been heard", () => {
    newest().fail(2);
    vi.advanceTimersByTime(500);
    newest().say("snapshot", snapshot());
    newest().fail(2);
    vi.advanceTimersByTime(500);
    expect(Source.all).toHaveLength(3);
  });

  it("does not wait for a retry when told to hurry, and opens nothing else while all is well", () => {
    stream.hurry();
    expect(Source.all).toHaveLength(1);
    newest().fail(2);
    stream.hurry();
    expect(Source.all).toHaveLength(2);
    vi.advanceTimersByTime(REOPEN_AFTER);
    expect(Source.all).toHaveLength(2);
  });

  it("gives up an open line that has gone silent", () => {
    newest().say("snapshot", snapshot());
    vi.advanceTimersByTime(REOPEN_AFTER - 1);
    newest().say("heartbeat", { now: at(1) });
    vi.advanceTimersByTime(REOPEN_AFTER - 1);
    expect(Source.all).toHaveLength(1);
    vi.advanceTimersByTime(1 + 500);
    expect(Source.all).toHaveLength(2);
    expect(Source.all[0]!.readyState).toBe(2);
  });

  it("tells a new stream what it has seen, so that another hub says nothing older", () => {
    newest().say("snapshot", snapshot(), "e~1f.0-10");
    newest().say("heartbeat", { now: at(1) }, "e~1f.0-10");
    newest().fail(2);
    vi.advanceTimersByTime(500);
    expect(newest().url).toBe("/api/live?after=e~1f.0-10");
    takesDeltas = false;
    newest().say("delta", delta(), "e~1f.0-12");
    vi.advanceTimersByTime(1000);
    expect(newest().url).toBe("/api/live");
  });

  it.each([
    ["what cannot be read", "delta", "{", "e-11"],
    ["a delta without an id", "delta", delta(), ""],
  ])("asks for a snapshot after %s", (_, type, value, lastEventId) => {
    const complain = vi.spyOn(console, "error").mockImplementation(() => undefined);
    newest().say(type, value, lastEventId);
    complain.mockRestore();
    expect(heard).toEqual([["broken", false]]);
    vi.advanceTimersByTime(500);
    expect(Source.all).toHaveLength(2);
  });

  it("asks for a snapshot after a delta that does not fit", () => {
    takesDeltas = false;
    newest().say("delta", delta(), "other-11");
    vi.advanceTimersByTime(500);
    expect(Source.all).toHaveLength(2);
  });

  it("does not listen to a stream it has left", () => {
    const left = newest();
    stream.open();
    left.say("snapshot", snapshot());
    left.fail(2);
    expect(heard).toEqual([]);
  });

  it("is quiet once closed", () => {
    stream.close();
    vi.advanceTimersByTime(60_000);
    expect(Source.all).toHaveLength(1);
  });
});
