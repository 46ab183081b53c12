// Figures, shares of the balance, and when sections of the page are stale.

import assert from "node:assert/strict";
import test from "node:test";

import { shares } from "../../static/lab/balance.js";
import { drawnByServer, isBusy, PATIENCE } from "../../static/lab/controls.js";
import { nodeNote } from "../../static/lab/nodes.js";
import { count, rate, took } from "../../static/lab/words.js";

test("figures are said as people say them", () => {
  assert.deepEqual([0, 12408, NaN, undefined].map(count), ["0", "12,408", "–", "–"]);
  assert.deepEqual([0, 0.02, 0.333, 9.96, 1940.4].map(rate), ["0/s", "< 0.1/s", "0.3/s", "10/s", "1,940/s"]);
  assert.deepEqual([12.3, 999, 1500, 42000, 125000].map(took), ["12 ms", "999 ms", "1.5 s", "42 s", "2 min 5 s"]);
});

test("the bar is full when anything was accepted, and a single parked message is seen", () => {
  const parts = shares({ processed: 100000, parked: 1, waiting: 0, lost: 0 });
  assert.ok(parts[1] > 0.5);
  assert.equal(parts[2], 0);
  assert.ok(Math.abs(parts.reduce((a, b) => a + b) - 100) < 1e-9);
  assert.deepEqual(shares({ accepted: 0 }), [0, 0, 0, 0]);
  assert.deepEqual(shares(null), [0, 0, 0, 0]);
});

test("sections are stale when a fault or a knob changed, not with each rate", () => {
  const state = { at: 1, nodes: [{ name: "a", state: "up", rate: 5 }], faults: [], knobs: { all: {} }, load: { run: "r", rate: 5, until: 9, offered: 1 } };
  const same = { ...state, at: 2, nodes: [{ name: "a", state: "up", rate: 9 }], load: { ...state.load, offered: 7 } };
  assert.equal(drawnByServer(state), drawnByServer(same));
  for (const changed of [
    { faults: [{ id: "f", evidence: "seen", healable: true }] },
    { knobs: { all: { prefetch: 3 } } },
    { guarantees_off: ["inbox"] },
    { load: null },
    { nodes: [{ name: "a", state: "dead" }] },
  ]) {
    assert.notEqual(drawnByServer(state), drawnByServer({ ...state, ...changed }), JSON.stringify(changed));
  }
});

const section = (inside, edited) => ({ contains: (what) => what === inside, dataset: edited === null ? {} : { edited } });

test("a section in which one writes does not change under one's hands", () => {
  const body = {};
  const field = { tagName: "INPUT" };
  const button = { tagName: "BUTTON" };
  const [writing, elsewhere] = [{ activeElement: field, body }, { activeElement: body, body }];
  assert.equal(isBusy(section(field, null), writing, 0), true);
  assert.equal(isBusy(section(field, null), elsewhere, 0), false);
  assert.equal(isBusy(section(button, null), { activeElement: button, body }, 0), false, "a button stays where it was");
  assert.equal(isBusy(section(field, "1000"), elsewhere, 2000), true);
  assert.equal(isBusy(section(field, "1000"), elsewhere, 1000 + PATIENCE), false, "left alone for long, it is no more");
});

test("a dead node says what went back", () => {
  const node = { service: "receiver", state: "dead", wentBack: 8, inHand: 0, prefetch: 8, held: 0 };
  assert.equal(nodeNote(node), "8 in hand went back");
  assert.equal(nodeNote({ ...node, wentBack: 0 }), "dead");
  assert.equal(nodeNote({ ...node, state: "up", inHand: 3, held: 1 }), "3 of 8 in hand, 1 held");
  assert.equal(nodeNote({ ...node, service: "sender", state: "up", waiting: 1204 }), "1,204 wait in all");
});
