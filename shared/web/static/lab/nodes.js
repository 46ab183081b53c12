// The drawing under the dots: lines and boxes as SVG, made once for each layout and then only told what changed.

import { inHand } from "./model.js";
import { count, rate, some } from "./words.js";

const SPACE = "http://www.w3.org/2000/svg";
/** So many slots can be told apart, also in the narrowest box; more are a bar, with the figure beside it. */
const SLOTS = 20;

function make(tag, attributes, parent) {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent?.append(element);
  return element;
}

/** Writes only what is not there already: each writing is work for the browser. */
function set(element, name, value) {
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A name that fits: its end is what tells nodes apart. */
function fitting(name, width) {
  const room = Math.max(4, Math.floor(width / 6.9));
  if (name.length <= room) return name;
  const end = Math.ceil((room - 1) / 2);
  return `${name.slice(0, room - 1 - end)}…${name.slice(-end)}`;
}

/** A note that fits where it can: what stands in the title in full may be said with fewer words. */
function shorter(note, width) {
  return note.length * 6.2 <= width ? note : note.replace(" in hand went back", " went back");
}

export class Drawing {
  constructor(svg) {
    this.svg = svg;
  }

  /** Everything anew, for this layout. */
  lay(layout, view) {
    this.layout = layout;
    const { svg } = this;
    svg.replaceChildren();
    set(svg, "viewBox", `0 0 ${layout.width} ${layout.height}`);
    set(svg, "width", layout.width);
    set(svg, "height", layout.height);
    this.lines = new Map();
    const under = make("g", { class: "flow-lines" }, svg);
    for (const [name, line] of Object.entries(layout.lines)) {
      if (name.startsWith("bounce:")) continue;
      const kind = name.split(":")[0];
      this.lines.set(name, make("path", { d: line.drawn, class: `flow-line flow-line-${kind}` }, under));
    }
    const boxes = make("g", { class: "flow-boxes" }, svg);
    this.nodes = new Map();
    for (const node of [...view.senders, ...view.receivers]) {
      const box = layout.boxes[node.name];
      if (box) this.nodes.set(node.name, this.makeNode(node, box, boxes));
    }
    this.exchange = this.makeExchange(boxes);
    this.queue = this.makeQueue(boxes);
    this.dead = this.makeDead(boxes);
    this.makeHidden(boxes);
  }

  box({ x, y, w, h }, kind, parent) {
    const group = make("g", { class: `flow-box ${kind}`, transform: `translate(${x} ${y})` }, parent);
    make("rect", { width: w, height: h, rx: 9 }, group);
    return group;
  }

  text(group, x, y, kind, end = false) {
    return make("text", { x, y, class: kind, ...(end ? { "text-anchor": "end" } : {}) }, group);
  }

  makeNode(node, box, parent) {
    const { roomy } = this.layout;
    const group = this.box(box, "flow-node", parent);
    const title = make("title", {}, group);
    const name = this.text(group, 12, roomy ? 22 : 20, "flow-name");
    const speed = this.text(group, box.w - 12, roomy ? 22 : 20, "flow-rate", true);
    const made = { group, title, name, speed, box, slots: [], drawn: "" };
    if (roomy) {
      made.note = this.text(group, 12, 43, "flow-note");
      made.figure = this.text(group, box.w - 12, 44, "flow-note", true);
      made.slotGroup = make("g", { transform: "translate(12 34)" }, group);
    }
    return made;
  }

  makeExchange(parent) {
    const box = this.layout.boxes.exchange;
    const group = this.box(box, "flow-exchange", parent);
    say(this.text(group, box.w / 2, box.h / 2 - 3, "flow-small flow-mid"), "exchange");
    const name = this.text(group, box.w / 2, box.h / 2 + 13, "flow-name flow-mid");
    return { group, name, box };
  }

  makeQueue(parent) {
    const box = this.layout.boxes.queue;
    const group = this.box(box, "flow-queue", parent);
    const name = this.text(group, 14, 23, "flow-name");
    const kind = this.text(group, box.w - 14, 23, "flow-note", true);
    const bar = { x: 14, y: 34, width: box.w - 28, height: 10, rx: 5 };
    make("rect", { ...bar, class: "flow-bar" }, group);
    const ready = make("rect", { ...bar, width: 0, class: "flow-ready" }, group);
    const unacked = make("rect", { ...bar, width: 0, class: "flow-unacked" }, group);
    const figures = this.text(group, 14, 64, "flow-note");
    return { group, name, kind, ready, unacked, figures, full: bar.width };
  }

  makeDead(parent) {
    const box = this.layout.boxes.dead;
    const group = this.box(box, "flow-dead", parent);
    const narrow = box.w < 130;
    say(this.text(group, 12, narrow ? 19 : box.h / 2 + 4, "flow-name"), "dead letters");
    const figure = narrow
      ? this.text(group, 12, 37, "flow-figure")
      : this.text(group, box.w - 12, box.h / 2 + 4, "flow-figure", true);
    return { group, figure };
  }

  /** More nodes than one can tell apart: how many are not drawn. They still count, and the table has them. */
  makeHidden(parent) {
    const { hidden, width, height, narrow } = this.layout;
    for (const [service, number] of Object.entries(hidden)) {
      if (number === 0) continue;
      const end = service === "receiver" && !narrow;
      const text = this.text(parent, end ? width : 0, narrow && service === "sender" ? 12 : height - 4, "flow-note", end);
      say(text, `and ${some(number, service)} more, in the table below`);
    }
  }

  /** Brings all of it up to date. */
  show(view) {
    for (const node of [...view.senders, ...view.receivers]) {
      const made = this.nodes.get(node.name);
      if (made) this.showNode(node, made, view);
    }
    this.showMiddle(view);
    for (const [name, path] of this.lines) this.showLine(name, path, view);
  }

  showNode(node, made, view) {
    const fault = view.struck.nodes.get(node.name) ?? view.struck.links.get(node.name);
    const state = node.blocked && node.state === "up" ? "blocked" : node.state;
    set(made.group, "class", `flow-box flow-node is-${state}${node.colour ? ` flow-colour-${node.colour}` : ""}`);
    const gone = state === "dead" || state === "frozen";
    const speed = gone || state !== "up" ? { dead: "died" }[state] ?? state : rate(node.rate);
    say(made.speed, speed);
    say(made.name, fitting(node.name, made.box.w - 26 - speed.length * 6.4));
    say(made.title, `${node.name}: ${nodeNote(node)}${fault ? `; ${fault}` : ""}`);
    if (!made.note) return;
    const slots = node.service === "receiver" && !gone && !fault && !node.cutOff && node.prefetch > 0;
    const room = made.box.w - 20;
    say(made.note, slots ? "" : fault && !gone ? fitting(fault, room) : shorter(nodeNote(node), room));
    this.showSlots(made, slots ? node : null);
  }

  /** What a receiver has in hand, of what it may. */
  showSlots(made, node) {
    const bars = node ? handSlots(node.inHand, node.prefetch, made.box.w - 24) : { rects: [], figure: "" };
    const drawn = JSON.stringify(bars.rects.map(({ x, width }) => [x, width]));
    if (made.drawn !== drawn) {
      made.drawn = drawn;
      made.slotGroup.replaceChildren();
      made.slots = bars.rects.map(({ x, width }) => make("rect", { x, y: 0, width, height: 12, rx: Math.min(3, width / 2) }, made.slotGroup));
    }
    made.slots.forEach((slot, index) => set(slot, "class", bars.rects[index].full ? "flow-slot is-full" : "flow-slot"));
    say(made.figure, bars.figure);
  }

  showMiddle(view) {
    const { queue, struck } = view;
    say(this.exchange.name, fitting(view.exchange ?? "messages", this.exchange.box.w - 12));
    const blocked = struck.exchange || queue?.blocked;
    set(this.exchange.group, "class", `flow-box flow-exchange${blocked ? " is-blocked" : ""}`);
    set(this.queue.group, "class", `flow-box flow-queue${struck.queue ? " is-struck" : blocked ? " is-blocked" : ""}`);
    const name = queue?.name ?? "queue";
    say(this.queue.name, name);
    const kind = struck.queue ?? (blocked ? "blocked" : (queue?.type ?? ""));
    say(this.queue.kind, fitting(kind, this.queue.full - name.length * 7.6 - 6));
    const ready = queue?.ready ?? 0;
    const unacked = queue?.unacked ?? 0;
    const room = this.queue.full;
    // Full at 100, 1,000, 10,000 ..: few are seen, and many fit.
    const scale = Math.max(100, 10 ** Math.ceil(Math.log10(Math.max(1, ready + unacked))));
    const wide = (number) => (number > 0 ? Math.max(3, (number / scale) * room) : 0);
    set(this.queue.ready, "width", wide(ready).toFixed(1));
    set(this.queue.unacked, "x", (14 + wide(ready)).toFixed(1));
    set(this.queue.unacked, "width", wide(unacked).toFixed(1));
    say(this.queue.figures, queue ? `${count(queue.ready)} ready · ${count(queue.unacked)} unacked` : "not known");
    say(this.dead.figure, count(view.dead));
    set(this.dead.group, "class", `flow-box flow-dead${view.dead > 0 ? " has-some" : ""}`);
  }

  showLine(name, path, view) {
    const [kind, node] = name.split(/:(.*)/s);
    const end = [...view.senders, ...view.receivers].find((other) => other.name === node);
    const way = kind === "publish" || kind === "deliver";
    const cut = way ? view.struck.links.has(node) || end?.cutOff : name === "route" && view.struck.route;
    const gone = end?.state === "dead";
    const used = view.lines[name] > 0;
    const word = gone ? " is-gone" : cut ? " is-cut" : used ? " is-used" : "";
    set(path, "class", `flow-line flow-line-${kind}${word}`);
  }
}

/**
 * What a receiver has in hand, within a width: a slot for each message that it may have, or where these are too many a bar
 * for them, one upon it for those that it has, and the figure.
 */
export function handSlots(held, prefetch, width) {
  if (prefetch <= SLOTS) {
    const step = Math.min(16, width / prefetch);
    const wide = step - Math.min(4, step * 0.3);
    const rects = Array.from({ length: prefetch }, (_, index) => ({ x: index * step, width: wide, full: index < held }));
    return { rects, figure: "" };
  }
  const figure = `${count(held)} of ${count(prefetch)}`;
  const room = Math.max(24, width - figure.length * 6.4 - 8);
  const part = Math.min(1, held / prefetch) * room;
  const rects = [{ x: 0, width: room, full: false }];
  if (held > 0) rects.push({ x: 0, width: Math.max(3, part), full: true });
  return { rects, figure };
}

/** What is to say of a node beside its rate. */
export function nodeNote(node) {
  if (node.state === "dead") return node.had > 0 ? inHand(node) : "dead";
  if (node.state === "frozen") return "stands still";
  if (node.state === "starting") return "starts";
  if (node.state === "stopping") return "finishes and stops";
  if (node.cutOff) return "no link with RabbitMQ";
  const parts = [];
  // The outbox is one for all senders.
  if (node.service === "sender") parts.push(`${count(node.waiting)} wait in all`);
  else parts.push(node.prefetch > 0 ? `${count(node.inHand)} of ${count(node.prefetch)} in hand` : `${count(node.inHand)} in hand`);
  if (node.held > 0) parts.push(`${count(node.held)} held`);
  return parts.join(", ");
}
