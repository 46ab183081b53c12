// The charts' seconds: gaps stay gaps, what comes twice counts once, faults have their spans.

import assert from "node:assert/strict";
import test from "node:test";

import { height, LEAST, lonely, Series, timeMarks, timeName, WHOLE } from "../../static/lab/series.js";

const second = (t, changes = {}) => ({ t, accepted: t % 10, faults: [], ...changes });

test("a second of which nothing is known is a gap", () => {
  const series = new Series(5);
  for (const t of [101, 102, 105]) series.add(second(t));
  assert.deepEqual(series.columns(["accepted"]), [[101, 102, 103, 104, 105], [1, 2, null, null, 5]]);
  assert.deepEqual(series.columns(["p50"])[1], [null, null, null, null, null]);
});

test("seconds that come twice count once, and history may come after what is newer", () => {
  const series = new Series(5);
  series.add(second(105));
  series.addAll([103, 104, 105].map((t) => second(t)));
  series.add(second(105, { accepted: 7 }));
  assert.deepEqual(series.columns(["accepted"])[1], [null, null, 3, 4, 7]);
  assert.equal(series.latest().accepted, 7);
});

test("only the last 15 minutes are kept", () => {
  const series = new Series(5);
  for (let t = 0; t < 1000; t += 1) series.add(second(t));
  assert.ok(series.seconds.size <= 10);
  assert.deepEqual(series.columns(["accepted"])[0], [995, 996, 997, 998, 999]);
  series.add(second(3));
  assert.equal(series.at(3), null);
});

test("what is no second is not taken for one", () => {
  const series = new Series();
  for (const nothing of [null, undefined, {}, { t: "x" }]) series.add(nothing);
  series.addAll(undefined);
  assert.equal(series.latest(), null);
  assert.deepEqual(series.spans(), []);
});

test("faults are shaded from their first second to their last, also across a gap", () => {
  const series = new Series(20);
  const faults = { 5: ["a"], 6: ["a", "b"], 8: ["a", "b"], 9: ["b"], 10: [], 12: ["a"] };
  for (const [t, names] of Object.entries(faults)) series.add(second(Number(t), { faults: names }));
  assert.deepEqual(series.spans(), [
    { name: "a", from: 5, to: 8 },
    { name: "b", from: 6, to: 9 },
    { name: "a", from: 12, to: 12 },
  ]);
});

test("what is shown begins with what is known, and is never too short nor too long", () => {
  const series = new Series(2 * LEAST);
  series.add(second(1000));
  assert.deepEqual(series.window(), [1001 - LEAST, 1000]);
  series.add(second(1000 - LEAST - 9));
  assert.deepEqual(series.window(), [991 - LEAST, 1000]);
  for (let t = 0; t <= 1000; t += 1) series.add(second(t));
  assert.deepEqual(series.window(), [1001 - 2 * LEAST, 1000]);
});

function marks(ms) {
  return timeMarks(height(ms)).map(timeName);
}

test("minutes hide no milliseconds: times have marks ten times apart, with short names", () => {
  assert.deepEqual(marks(300_000), ["1 ms", "10 ms", "100 ms", "1 s", "10 s", "1 min"]);
  assert.deepEqual(marks(70), ["1 ms", "10 ms"]);
  assert.ok(height(100) - height(10) > 0.9);
  assert.deepEqual([height(0.2), height(0), height(NaN)], [0, 0, null]);
});

test("an axis of counts has whole numbers, each once", () => {
  assert.ok(WHOLE.every(Number.isInteger));
  assert.deepEqual(WHOLE.slice(0, 5), [1, 2, 5, 10, 20]);
  assert.equal(new Set(WHOLE).size, WHOLE.length);
});

test("what has a gap beside it is drawn as a point", () => {
  assert.deepEqual(lonely([null, 3, null, 4, 5, 6, null]), [1, 3, 5]);
  assert.equal(lonely([1, 2, 3]), null, "a line is seen, also at its ends");
  assert.deepEqual(lonely([null, undefined, 7]), [2]);
  assert.equal(lonely([null, null]), null);
});
