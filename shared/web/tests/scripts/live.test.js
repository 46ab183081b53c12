// The connection, with a source and a clock of the test's own.

import assert from "node:assert/strict";
import test from "node:test";

import { Live, SILENCE } from "../../static/lab/live.js";

class Source extends EventTarget {
  constructor() {
    super();
    this.readyState = 1;
    this.closed = false;
  }

  say(kind, data) {
    const event = new Event(kind);
    event.data = typeof data === "string" ? data : JSON.stringify(data);
    this.dispatchEvent(event);
  }

  close() {
    this.closed = true;
  }
}

function begun() {
  const made = { now: 0, sources: [], told: [], statuses: [], resumed: 0 };
  made.live = new Live({
    source: () => {
      made.sources.push(new Source());
      return made.sources.at(-1);
    },
    tell: (kind, what) => made.told.push([kind, what]),
    status: (live, why) => made.statuses.push([live, why]),
    resumed: () => {
      made.resumed += 1;
    },
    now: () => made.now,
  });
  made.live.start();
  return made;
}

test("what the console says of Redis is what the page says, once", () => {
  const made = begun();
  made.sources[0].say("state", { live: true });
  made.sources[0].say("state", { live: true });
  made.sources[0].say("state", { live: false, why_not: "Redis is away" });
  assert.deepEqual(made.statuses, [[true, null], [false, "Redis is away"]]);
});

test("after a break the history is fetched, at the start it is not", () => {
  const made = begun();
  made.sources[0].dispatchEvent(new Event("open"));
  assert.equal(made.resumed, 0);
  made.sources[0].dispatchEvent(new Event("error"));
  assert.deepEqual(made.statuses.at(-1), [false, "the connection to the console is lost"]);
  made.sources[0].dispatchEvent(new Event("open"));
  assert.equal(made.resumed, 1);
});

test("a console that refuses is asked again, later each time", () => {
  const made = begun();
  const refuse = () => {
    made.sources.at(-1).readyState = 2;
    made.sources.at(-1).dispatchEvent(new Event("error"));
  };
  refuse();
  made.live.tick();
  assert.equal(made.sources.length, 1);
  made.now = 1000;
  made.live.tick();
  assert.equal(made.sources.length, 2);
  refuse();
  made.now = 2000;
  made.live.tick();
  assert.equal(made.sources.length, 2);
  made.now = 3000;
  made.live.tick();
  assert.equal(made.sources.length, 3);
});

test("a connection without a word is said to be dead, and then opened anew", () => {
  const made = begun();
  made.sources[0].say("state", { live: true });
  made.now = SILENCE;
  made.live.tick();
  assert.equal(made.statuses.at(-1)[0], false);
  assert.equal(made.sources.length, 1);
  made.now = 3 * SILENCE + 1;
  made.live.tick();
  assert.ok(made.sources[0].closed);
  made.now += 1000;
  made.live.tick();
  assert.equal(made.sources.length, 2);
  made.sources[1].say("state", { live: true });
  assert.deepEqual(made.statuses.at(-1), [true, null]);
});

test("a page that is not seen has no connection, and fetches the history when it is", () => {
  const made = begun();
  made.sources[0].dispatchEvent(new Event("open"));
  made.live.start();
  assert.equal(made.sources.length, 1);
  made.live.stop();
  assert.ok(made.sources[0].closed);
  made.now = 10 * SILENCE;
  made.live.tick();
  assert.deepEqual([made.sources.length, made.statuses], [1, []]);
  made.live.start();
  made.sources[1].dispatchEvent(new Event("open"));
  made.live.tick();
  assert.deepEqual([made.sources.length, made.statuses, made.resumed], [2, [], 1]);
});

test("a page that is first seen later fetches what was before", () => {
  const made = begun();
  made.live.stop();
  made.live.start();
  made.sources[1].dispatchEvent(new Event("open"));
  assert.equal(made.resumed, 1);
});

test("what cannot be read is left out, and the next is heard", () => {
  const made = begun();
  made.sources[0].say("frame", "{half");
  made.sources[0].say("frame", { seq: 2 });
  assert.deepEqual(made.told, [["frame", { seq: 2 }]]);
});
