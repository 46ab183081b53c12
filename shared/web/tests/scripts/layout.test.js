// The layout: at every width and for any number of nodes nothing overlaps, leaves the picture or lacks its line.

import assert from "node:assert/strict";
import test from "node:test";

import { at, layout, NARROW, SHOWN } from "../../static/lab/layout.js";
import { thickness } from "../../static/lab/dots.js";

const names = (kind, number) => Array.from({ length: number }, (_, index) => `${kind}-${index + 1}`);
const near = ([x, y], box) => x >= box.x - 0.5 && x <= box.x + box.w + 0.5 && y >= box.y - 0.5 && y <= box.y + box.h + 0.5;
const apart = (a, b) => a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y;

test("boxes stand apart, within the picture", () => {
  for (const width of [300, 358, NARROW - 1, NARROW, 760, 1140, 2400]) {
    for (const [senders, receivers] of [[0, 0], [1, 1], [2, 3], [5, 6], [9, 12]]) {
      const made = layout(width, names("sender", senders), names("receiver", receivers));
      const boxes = Object.entries(made.boxes);
      assert.equal(boxes.length, senders + receivers + 3);
      boxes.forEach(([name, box], index) => {
        const where = `${name} at ${width} px with ${senders} and ${receivers}`;
        assert.ok(box.x >= 0 && box.y >= 0 && box.x + box.w <= width + 0.01, where);
        assert.ok(box.y + box.h <= made.height, where);
        for (const [other, place] of boxes.slice(index + 1)) assert.ok(apart(box, place), `${where}: upon ${other}`);
      });
    }
  }
});

test("lines begin and end at their boxes, in both forms", () => {
  for (const width of [360, 1100]) {
    const made = layout(width, names("sender", 2), names("receiver", 3));
    for (const [name, from, to] of [
      ["publish:sender-2", "sender-2", "queue"],
      ["deliver:receiver-3", "queue", "receiver-3"],
      ["back:receiver-1", "receiver-1", "queue"],
      ["bounce:sender-1", "sender-1", "sender-1"],
      ["dead", "queue", "dead"],
      ["redrive", "dead", "exchange"],
      ["route", "exchange", "queue"],
    ]) {
      assert.ok(near(at(made.lines[name], 0), made.boxes[from]), `${name} begins elsewhere`);
      assert.ok(near(at(made.lines[name], 1), made.boxes[to]), `${name} ends elsewhere`);
    }
  }
});

test("a dot moves on evenly along its line", () => {
  const { lines } = layout(1000, ["s"], ["r"]);
  let last = at(lines["deliver:r"], 0);
  const whole = lines["deliver:r"].length;
  for (let share = 0.05; share <= 1.0001; share += 0.05) {
    const next = at(lines["deliver:r"], share);
    const step = Math.hypot(next[0] - last[0], next[1] - last[1]);
    assert.ok(Math.abs(step - whole * 0.05) < whole * 0.01, `${step} of ${whole}`);
    last = next;
  }
});

test("more nodes than can be told apart are counted, not drawn", () => {
  const made = layout(1000, names("sender", 2), names("receiver", SHOWN + 5));
  assert.equal(made.hidden.receiver, 5);
  assert.equal(made.boxes[`receiver-${SHOWN + 1}`], undefined);
});

test("lines grow with their rates from a hair to a band", () => {
  assert.equal(thickness(0), 0);
  assert.ok(thickness(1) < 2.5);
  assert.ok(thickness(100) > thickness(10) && thickness(2000) > thickness(100));
  assert.ok(thickness(1e9) <= 14);
});
