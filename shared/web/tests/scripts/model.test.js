// The model: what it takes in once, what it lets move, and what it says of it.

import assert from "node:assert/strict";
import test from "node:test";

import { caption, LATEST, Model, READABLE, strikes } from "../../static/lab/model.js";
import { rate } from "../../static/lab/words.js";

const T = 1_700_000_000_000;

function state(changes = {}) {
  return {
    at: T,
    live: true,
    nodes: [
      { name: "sender-1", service: "sender", colour: 3, state: "up", rate: 1, waiting: 2 },
      { name: "receiver-1", service: "receiver", colour: 5, state: "up", rate: 1, in_hand: 0, prefetch: 8 },
    ],
    queue: { name: "messages", type: "quorum", ready: 1, unacked: 2, dead: 0, blocked: false },
    faults: [],
    ...changes,
  };
}

function frame(node, seq, sample, changes = {}) {
  const counts = {};
  for (const event of sample) counts[event.kind] = (counts[event.kind] ?? 0) + 1;
  const service = node.startsWith("sender") ? "sender" : "receiver";
  return { v: 1, node, service, boot: "a", seq, at: T + 100, since: T, counts, sample, left_out: 0, dropped: 0, gauges: {}, ...changes };
}

const event = (kind, id, at = T) => ({ kind, id, at });

function begun() {
  const model = new Model();
  model.state(state(), T);
  return model;
}

test("a frame that is told again after a break moves nothing and counts nothing", () => {
  const model = begun();
  const frames = [1, 2, 3].map((seq) => frame("sender-1", seq, [event("accepted", `m${seq}`)]));
  for (const one of frames) model.frame(one, T);
  assert.equal(model.take().length, 3);
  const before = model.view(T).accepted;
  // The console sends the last seconds again, and then what is new.
  for (const one of [...frames, frame("sender-1", 4, [event("accepted", "m4")])]) model.frame(one, T);
  assert.equal(model.take().length, 1);
  assert.equal(model.view(T).accepted, (before * 4) / 3);
});

test("a node that was started again counts from its beginning", () => {
  const model = begun();
  model.frame(frame("sender-1", 900, [event("accepted", "old")]), T);
  model.frame(frame("sender-1", 0, [event("accepted", "new")], { boot: "b" }), T);
  assert.equal(model.take().length, 2);
});

test("a message moves in its order, in its sender's colour, and never later than a second", () => {
  const model = begun();
  const all = [event("accepted", "m"), event("published", "m", T + 5)];
  model.frame(frame("sender-1", 1, all), T);
  model.frame(frame("receiver-1", 1, [event("delivered", "m", T + 6), event("processed", "m", T + 7)]), T);
  const trips = model.take();
  assert.deepEqual(trips.map((trip) => trip.line), ["in:sender-1", "publish:sender-1", "deliver:receiver-1", "out:receiver-1"]);
  for (const trip of trips) {
    assert.equal(trip.colour, 3);
    assert.ok(trip.start + trip.ms <= T + LATEST + 1, `${trip.line} ends ${trip.start + trip.ms - T} ms later`);
  }
  for (let index = 1; index < trips.length; index += 1) assert.ok(trips[index].start >= trips[index - 1].start);
  assert.ok(trips[1].start >= trips[0].start + trips[0].ms);
});

test("a failure goes back to the queue, and what is given up goes to the dead letters", () => {
  const model = begun();
  model.frame(frame("receiver-1", 1, [event("failed", "m"), event("dead", "n"), event("redriven", "o")]), T);
  assert.deepEqual(model.take().map((trip) => trip.line), ["back:receiver-1", "dead", "redrive"]);
});

test("an event of a kind that is not known moves nothing", () => {
  const model = begun();
  model.frame(frame("receiver-1", 1, [event("enchanted", "m")]), T);
  assert.deepEqual(model.take(), []);
});

test("what a dead receiver had in hand goes back, once", () => {
  const model = begun();
  model.frame(frame("receiver-1", 1, [], { gauges: { in_hand: 5, prefetch: 8 } }), T);
  const dead = state();
  dead.nodes[1] = { ...dead.nodes[1], state: "dead", in_hand: 0 };
  model.state(dead, T + 1000);
  model.state(dead, T + 2000);
  const trips = model.take();
  assert.equal(trips.length, 5);
  assert.ok(trips.every((trip) => trip.line === "back:receiver-1" && trip.look === "bad"));
  assert.equal(model.view(T + 2000).receivers[0].had, 5);
  assert.deepEqual(model.takeNews(), ["receiver-1 died, up to 5 in hand went back"]);
  model.state(state(), T + 3000);
  assert.deepEqual(model.takeNews(), ["receiver-1 is back"]);
  assert.equal(model.view(T + 3000).receivers[0].had, 0);
});

test("of a receiver that acks on arrival nothing is seen going back", () => {
  const model = begun();
  model.state(state({ guarantees_off: ["ack-after-commit"] }), T);
  model.frame(frame("receiver-1", 1, [], { gauges: { in_hand: 5, prefetch: 8 } }), T);
  const dead = state({ guarantees_off: [] });
  dead.nodes[1] = { ...dead.nodes[1], state: "dead", in_hand: 0 };
  model.state(dead, T + 1000);
  assert.deepEqual(model.take(), []);
  assert.match(model.takeNews()[0], /died, had up to 5 in hand, .*nothing brings them back/);
});

test("after a gap the caption does not say that every message is shown", () => {
  const model = begun();
  const said = (now) => caption(model.view(now), true, null, rate);
  model.frame(frame("sender-1", 7, [event("accepted", "m")]), T);
  assert.match(said(T), /every message is shown/, "what was before the first frame is not missing");
  model.frame(frame("sender-1", 9, [event("accepted", "n")]), T);
  assert.match(said(T), /dots are a sample$/);
  const later = T + 4000;
  model.frame(frame("sender-1", 10, [event("accepted", "o")]), later);
  assert.match(said(later), /every message is shown/);
  model.frame(frame("sender-1", 0, [event("accepted", "p")], { boot: "b" }), later);
  assert.match(said(later), /every message is shown/, "another process begins anew");
});

test("a node that was dead before we looked is not seen dying", () => {
  const model = new Model();
  const dead = state();
  dead.nodes[1].state = "dead";
  model.state(dead, T);
  assert.deepEqual(model.take(), []);
  assert.deepEqual(model.takeNews(), []);
});

test("a node that the console names no more is gone", () => {
  const model = begun();
  model.state(state({ nodes: state().nodes.slice(0, 1) }), T);
  assert.equal(model.view(T).receivers.length, 0);
});

test("few messages are all shown, and the caption says so", () => {
  const model = begun();
  for (let second = 0; second < 5; second += 1) {
    const now = T + second * 1000;
    model.state(state(), now);
    model.frame(frame("sender-1", second, [event("accepted", `m${second}`), event("published", `m${second}`)]), now);
  }
  const view = model.view(T + 4000);
  assert.equal(view.streaming, false);
  assert.equal(model.take().length, 10);
  assert.equal(caption(view, true, null, rate), "1/s accepted, 0/s processed · every message is shown, a dot is one");
});

/** So many messages a second for some seconds: each frame has 20 of them and says how many it left out. */
function busy(model, perSecond, from, seconds) {
  const each = perSecond / 10;
  for (let tenth = 0; tenth < seconds * 10; tenth += 1) {
    const now = from + tenth * 100;
    const shown = Math.min(10, each);
    const ids = Array.from({ length: shown }, (_, index) => `${now}-${index}`);
    const both = ids.flatMap((id) => [event("accepted", id, now), event("published", id, now)]);
    const counts = { accepted: each, published: each };
    model.frame(frame("sender-1", now, both, { since: now, at: now + 100, counts, left_out: 2 * (each - shown) }), now);
  }
  return from + seconds * 1000 - 100;
}

test("2,000 a second are streams with a sample of dots, and the caption says so", () => {
  const model = begun();
  const now = busy(model, 2000, T, 4);
  model.take();
  busy(model, 2000, now + 100, 2);
  const dots = model.take().length / 2;
  assert.ok(dots <= READABLE, `${dots} dots a second`);
  assert.ok(dots >= 10, `${dots} dots a second`);
  const view = model.view(now + 2100);
  assert.equal(view.streaming, true);
  const text = caption(view, true, null, rate);
  assert.match(text, /^(1,9\d\d|2,0\d\d)\/s accepted/);
  assert.match(text, /dots are a sample$/);
});

test("what is rare is seen among what is not", () => {
  const model = begun();
  const now = busy(model, 2000, T, 4);
  model.take();
  model.frame(frame("receiver-1", 1, [event("failed", "rare")], { since: now }), now);
  assert.deepEqual(model.take().map((trip) => trip.line), ["back:receiver-1"]);
});

test("after the rush single dots come back, but not at the edge", () => {
  const model = begun();
  let now = busy(model, 200, T, 4);
  assert.equal(model.view(now).streaming, true);
  now = busy(model, 130, now + 100, 4);
  assert.equal(model.view(now + 300).streaming, true, "130 is above the calm, though below the limit");
  now = busy(model, 50, now + 100, 4);
  assert.equal(model.view(now + 300).streaming, false);
});

test("a frame that left something out makes the caption say that dots are a sample", () => {
  const model = begun();
  model.frame(frame("sender-1", 1, [event("accepted", "m")], { left_out: 3, counts: { accepted: 4 } }), T);
  assert.match(caption(model.view(T), true, null, rate), /dots are a sample$/);
  const later = T + 4000;
  model.frame(frame("sender-1", 2, [event("accepted", "n")]), later);
  assert.match(caption(model.view(later), true, null, rate), /every message is shown/);
});

test("without Redis the caption says that the page is not live, and why", () => {
  const view = begun().view(T);
  assert.equal(caption(view, false, "Redis is away", rate), "not live: Redis is away");
  assert.equal(caption(view, true, null, rate), "quiet: nothing moves");
});

test("what is remembered of messages is bounded", () => {
  const model = begun();
  for (let second = 0; second < 60; second += 1) busy(model, 1000, T + second * 1000, 1);
  assert.ok(model.messages.size <= 4000);
  assert.ok(model.recent.parts.length <= 31, `${model.recent.parts.length}`);
});

test("faults strike where they are", () => {
  const { nodes } = state();
  const faults = [
    { kind: "rabbitmq-link-cut", target: "receiver-1" },
    { kind: "fail-point", target: "sender-1, sender-9" },
    { kind: "rabbitmq-memory-alarm", target: "RabbitMQ" },
    { kind: "queue-unbind", target: "messages" },
    { kind: "queue-limit", target: "messages" },
    { kind: "postgres-pause", target: "PostgreSQL" },
  ];
  const struck = strikes(faults, nodes);
  assert.deepEqual([...struck.links], [["receiver-1", "rabbitmq-link-cut"]]);
  assert.deepEqual([...struck.nodes], [["sender-1", "fail-point"]]);
  assert.deepEqual([struck.exchange, struck.route, struck.queue], ["rabbitmq-memory-alarm", "queue-unbind", "queue-limit"]);
  assert.deepEqual(struck.beside, ["postgres-pause PostgreSQL"]);
});

test("dead letters are those of all runs that wait for a decision, also while a load has its own balance", () => {
  const model = begun();
  const queue = { ...state().queue, parked: 400, dead: 2 };
  model.state(state({ queue, balance: { run: null, parked: 412 } }), T);
  assert.equal(model.view(T).dead, 402);
  model.state(state({ queue, balance: { run: "r1", parked: 0 } }), T + 1000);
  assert.equal(model.view(T + 1000).dead, 402);
});
