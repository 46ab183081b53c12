// Figures, shares of the balance, and when sections of the page are stale.

import assert from "node:assert/strict";
import test from "node:test";

import { shares, showBalance, showRuns } from "../../static/lab/balance.js";
import { look } from "../../static/lab/moves.js";
import { Controls, doneWords, drawnByServer, isBusy, PATIENCE, showLoad } from "../../static/lab/controls.js";
import { handSlots, nodeNote } from "../../static/lab/nodes.js";
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
    { faults: [{ id: "f", evidence: "seen", healable: true, until: 9 }] },
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
  const node = { service: "receiver", state: "dead", had: 8, goesBack: true, inHand: 0, prefetch: 8, held: 0 };
  assert.equal(nodeNote(node), "up to 8 in hand went back");
  assert.equal(nodeNote({ ...node, had: 0 }), "dead");
  assert.match(nodeNote({ ...node, goesBack: false }), /^had up to 8 in hand, .*nothing brings them back$/);
  assert.equal(nodeNote({ ...node, state: "up", inHand: 3, held: 1 }), "3 of 8 in hand, 1 held");
  assert.equal(nodeNote({ ...node, service: "sender", state: "up", waiting: 1204 }), "1,204 wait in all");
});

test("what is drawn of a receiver's hand agrees with what is said", () => {
  const drawn = handSlots(8, 16, 108);
  assert.deepEqual([drawn.rects.length, drawn.rects.filter((slot) => slot.full).length, drawn.figure], [16, 8, ""]);
  for (const prefetch of [1, 8, 16, 20]) {
    const { rects } = handSlots(prefetch, prefetch, 108);
    rects.forEach(({ x, width, full }, index) => {
      assert.ok(full && width >= 3 && x + width <= 108, `${index} of ${prefetch}`);
      assert.ok(index === 0 || x >= rects[index - 1].x + rects[index - 1].width + 1, `${index} of ${prefetch}`);
    });
  }
  const [whole, part] = handSlots(50, 200, 166).rects;
  assert.equal(part.width, whole.width / 4);
  assert.equal(handSlots(50, 200, 166).figure, "50 of 200");
  assert.equal(handSlots(0, 200, 166).rects.length, 1);
});

function saying(words) {
  return { getAttribute: () => words };
}

test("a button says what it has done, and for whom", () => {
  const target = { value: "all", selectedOptions: [{ textContent: "all nodes" }] };
  const form = { elements: { target, n: { value: "5" } } };
  assert.equal(doneWords(form, saying("Turned for {target}.")), "Turned for all nodes.");
  assert.equal(doneWords(form, saying("{n} of {none}")), "5 of ");
  assert.equal(doneWords(form, saying(null)), "");
  assert.equal(doneWords(form, null), "");
});

test("what was done is said for a moment, why it was not stays", (t) => {
  let later = null;
  t.mock.method(globalThis, "setInterval", () => {});
  t.mock.method(globalThis, "setTimeout", (deed) => (later = deed));
  t.mock.method(globalThis, "clearTimeout", () => (later = null));
  const classes = {};
  const place = { hidden: true, textContent: "", classList: { toggle: (name, on) => (classes[name] = on) } };
  const document = { addEventListener() {}, querySelectorAll: () => [{}], getElementById: () => place };
  const controls = new Controls({ page: "/lab", document });
  controls.say("1 message was sent.", false);
  assert.deepEqual([place.hidden, place.textContent, classes["notice-ok"]], [false, "1 message was sent.", true]);
  later();
  assert.equal(place.hidden, true);
  controls.say("1 message was sent.", false);
  controls.say("Redis is away.", true);
  assert.deepEqual([later, place.hidden, place.textContent, classes["notice-ok"]], [null, false, "Redis is away.", false]);
});

function figurePlace() {
  return { textContent: "", style: {}, classList: { toggle() {} }, dataset: {} };
}

/** As much of a page as the balance needs: places by what they are. */
function balancePage() {
  const places = Object.fromEntries(["run", "accepted", "processed", "parked", "discarded", "waiting", "lost"].map((is) => [is, figurePlace()]));
  const named = (query) => places[query.match(/data-is="?(\w+)/)?.[1]];
  const figures = { dataset: {}, querySelectorAll: (query) => [named(query)], querySelector: named };
  const root = { getElementById: (id) => (id === "balance" ? figures : null), querySelectorAll: () => [] };
  return { root, figures, places };
}

test("the balance says whose it is when a load begins and ends under an open page", () => {
  const { root, figures, places } = balancePage();
  const all = { run: null, accepted: 5000, processed: 5000, parked: 0, waiting: 0, lost: 0, as_of: 1 };
  const run = { run: "r1122-0915-abcd", accepted: 12, processed: 3, parked: 0, waiting: 9, lost: 0, as_of: 2 };
  const shown = (balance) => {
    showBalance(root, { balance });
    return [places.run.textContent, figures.dataset.run, places.accepted.textContent];
  };
  assert.deepEqual(shown(all), ["", "", "5,000"]);
  assert.deepEqual(shown(run), [" in r1122-0915-abcd", "r1122-0915-abcd", "12"]);
  assert.deepEqual(shown({ ...all, as_of: 3 }), ["", "", "5,000"]);
  assert.equal(places.discarded.textContent, "");
  shown({ ...all, parked: 4, discarded: 1 });
  assert.deepEqual([places.parked.textContent, places.discarded.textContent], ["4", ", 1 discarded"]);
});

/** A cell of a table as a page has it. */
function tableCell() {
  return {
    textContent: "",
    replaceChildren(child) {
      this.textContent = child.textContent ?? child;
      this.href = child.href;
    },
  };
}

function tableRow() {
  const cells = [];
  return { cells, insertCell: () => cells[cells.push(tableCell()) - 1] };
}

/** Rows of a table as a page has them. */
function tableBody() {
  const rows = [];
  return { rows, insertRow: () => rows[rows.push(tableRow()) - 1], deleteRow: () => rows.pop() };
}

function balanceOf(run, accepted) {
  return { run, accepted, processed: accepted - 1, parked: 1, waiting: 0, lost: 0 };
}

function loadPlace(load) {
  return { dataset: { load }, textContent: "0", hidden: true };
}

test("balances of runs follow the counts", () => {
  const body = tableBody();
  const root = {
    getElementById: (id) => (id === "runs-table" ? { tBodies: [body] } : null),
    createElement: () => ({}),
  };
  const text = () => body.rows.map((row) => row.cells.map((cell) => cell.textContent).join(" "));
  showRuns(root, { all: balanceOf(null, 1200), runs: [balanceOf("r2", 200), balanceOf("r1", 1000)] });
  assert.deepEqual(text(), ["all messages 1,200 1,199 1 0 0", "r2 200 199 1 0 0", "r1 1,000 999 1 0 0"]);
  assert.deepEqual(body.rows.map((row) => row.cells[0].href), [undefined, "/lab/messages?run=r2", "/lab/messages?run=r1"]);
  showRuns(root, { all: balanceOf(null, 1300), runs: [balanceOf("r2", 300)] });
  assert.deepEqual(text(), ["all messages 1,300 1,299 1 0 0", "r2 300 299 1 0 0"]);
});

test("the line of the load goes on with it, and says when it stops", () => {
  const places = ["accepted", "offered", "stopping"].map(loadPlace);
  const root = { querySelectorAll: () => places };
  showLoad(root, { accepted: 1234, offered: 2000, stopping: false });
  assert.deepEqual(places.map((one) => one.textContent), ["1,234", "2,000", "0"]);
  assert.equal(places[2].hidden, true);
  showLoad(root, { accepted: 1240, offered: 2000, stopping: true });
  assert.equal(places[2].hidden, false);
  showLoad(root, null);
  assert.equal(places[0].textContent, "1,240", "what was last known, until the section is drawn anew");
});

test("a section in which somebody works is asked for again only when he has gone on", async (t) => {
  const ticks = [];
  t.mock.method(globalThis, "setInterval", (tick) => ticks.push(tick));
  globalThis.DOMParser = class {
    parseFromString = (html) => ({ getElementById: () => ({ innerHTML: html }), querySelector: () => null });
  };
  t.after(() => delete globalThis.DOMParser);
  const body = {};
  const field = { tagName: "INPUT" };
  const swapped = [];
  const load = { ...section(field, null), id: "load", innerHTML: "old" };
  const document = { body, activeElement: field, hidden: false, addEventListener() {}, querySelectorAll: () => [load] };
  const asked = [];
  const ask = async (page) => {
    asked.push(page);
    return { ok: true, text: async () => "new" };
  };
  const controls = new Controls({ page: "/lab", document, ask });
  controls.swap = (_, fresh) => swapped.push(fresh.innerHTML);
  controls.wanted = true;
  ticks[0]();
  await new Promise(setImmediate);
  assert.deepEqual([asked.length, swapped.length], [1, 0]);
  controls.asked = 0;
  ticks[0]();
  await new Promise(setImmediate);
  assert.equal(asked.length, 1, "the cursor stands there still");
  document.activeElement = body;
  ticks[0]();
  await new Promise(setImmediate);
  assert.deepEqual([asked.length, swapped], [2, ["new"]]);
});

/** A server that says this of each page. */
function answers(html, ok = true) {
  return async () => ({ ok, text: async () => html });
}

test("a page that goes on is drawn anew where it changed, until nothing goes on", async (t) => {
  const told = [];
  globalThis.DOMParser = class {
    parseFromString = (html) => ({
      getElementById: () => html && { innerHTML: html, childNodes: [html], hasAttribute: () => html !== "done" },
    });
  };
  t.after(() => delete globalThis.DOMParser);
  const ownerDocument = { activeElement: null, importNode: (fresh) => fresh };
  const part = {
    id: "moves",
    ownerDocument,
    contains: () => false,
    querySelectorAll: () => [],
    replaceChildren: (...nodes) => told.push(...nodes),
    dispatchEvent: ({ type }) => told.push(type),
  };
  let known = { html: null, moves: true };
  known = await look(part, known, answers("half"));
  known = await look(part, known, answers("half"));
  known = await look(part, known, answers("", false));
  known = await look(part, known, answers(""));
  assert.equal(known.moves, true);
  known = await look(part, known, answers("done"));
  assert.deepEqual(told, ["half", "fresh", "done", "fresh"]);
  assert.equal(known.moves, false);
});
