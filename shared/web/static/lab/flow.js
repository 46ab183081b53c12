// The flow: ties the model to the drawing, the dots, the caption and the table.

import { Dots, thickness } from "./dots.js";
import { layout } from "./layout.js";
import { caption } from "./model.js";
import { Drawing, nodeNote } from "./nodes.js";
import { count, rate } from "./words.js";

/** The drawing says how things stand four times a second: more cannot be read. */
const OFTEN = 250;
/** The table, less often: a screen reader reads it. */
const TABLE_OFTEN = 2000;

export class Flow {
  constructor(root, model) {
    this.root = root;
    this.model = model;
    this.stage = root.querySelector("#flow-stage");
    this.caption = root.querySelector("#flow-caption");
    this.rows = root.querySelector("#flow-table tbody");
    this.news = root.querySelector("#flow-news");
    this.reduced = matchMedia("(prefers-reduced-motion: reduce)");
    this.drawing = new Drawing(root.querySelector("#flow-lines"));
    this.dots = new Dots(root.querySelector("#flow-dots"), () => this.reduced.matches);
    this.shape = null;
    this.tabled = 0;
    this.live = false;
    this.why = "connecting";
    new ResizeObserver(() => this.show()).observe(this.stage);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const again = () => {
      this.shape = null;
      this.show();
    };
    dark.addEventListener("change", again);
    this.reduced.addEventListener("change", again);
    setInterval(() => this.show(), OFTEN);
    this.show();
  }

  status(live, why) {
    this.live = live;
    this.why = why;
    this.root.classList.toggle("is-not-live", !live);
    this.show();
  }

  /** Dots set out at once; everything else waits for its turn. */
  moved() {
    const trips = this.model.take();
    if (trips.length > 0) this.dots.add(trips);
  }

  show() {
    const width = Math.floor(this.stage.clientWidth);
    if (width === 0 || document.hidden) return;
    const now = Date.now();
    const view = this.model.view(now);
    const shape = JSON.stringify([width, names(view.senders), names(view.receivers)]);
    if (shape !== this.shape) {
      this.shape = shape;
      const made = layout(width, names(view.senders), names(view.receivers));
      this.drawing.lay(made, view);
      this.dots.fit(made, colours(this.root));
      this.stage.style.height = `${made.height}px`;
    }
    this.drawing.show(view);
    this.dots.flow(view.streaming && this.live ? streams(view) : []);
    this.say(view);
    if (now - this.tabled >= TABLE_OFTEN) {
      this.tabled = now;
      this.table(view);
    }
  }

  say(view) {
    let text = caption(view, this.live, this.why, rate);
    if (this.live && this.reduced.matches) text = text.split(" · ")[0];
    if (view.struck.beside.length > 0) text += ` · struck: ${view.struck.beside.join(", ")}`;
    if (this.caption.textContent !== text) this.caption.textContent = text;
    const news = this.model.takeNews();
    if (news.length > 0) this.news.textContent = news.slice(-3).join("; ");
  }

  table(view) {
    const { queue } = view;
    const rows = [...view.senders, ...view.receivers].map((node) => [
      node.name,
      node.blocked ? "blocked" : node.state,
      node.state === "dead" ? "–" : rate(node.rate),
      nodeNote(node),
    ]);
    if (queue) {
      const inside = `${count(queue.ready)} ready, ${count(queue.unacked)} unacked`;
      rows.push([`queue ${queue.name}`, queue.blocked ? "blocked" : "up", rate(view.lines.route), inside]);
      rows.push(["dead letters", "", rate(view.lines.dead), count(view.dead)]);
    }
    rows.forEach((cells, index) => {
      const row = this.rows.rows[index] ?? this.rows.insertRow();
      cells.forEach((text, column) => {
        const cell = row.cells[column] ?? row.insertCell();
        if (cell.textContent !== text) cell.textContent = text;
      });
    });
    while (this.rows.rows.length > rows.length) this.rows.deleteRow(-1);
  }
}

function names(nodes) {
  return nodes.map((node) => node.name);
}

/** The lines that are streams now, each with its width and colour. */
function streams(view) {
  const colourOf = Object.fromEntries(view.senders.map((node) => [node.name, node.colour ?? "accent"]));
  return Object.entries(view.lines)
    .filter(([, perSecond]) => perSecond > 0)
    .map(([line, perSecond]) => {
      const [kind, node] = line.split(/:(.*)/s);
      const colour = kind === "publish" ? colourOf[node] : { back: "wait", dead: "bad", redrive: "wait" }[kind] ?? "accent";
      return { line, width: thickness(perSecond), colour };
    });
}

/** The page's own colours, as they are now: light or dark. */
export function colours(root) {
  const style = getComputedStyle(root);
  const of = (name) => style.getPropertyValue(`--ua-${name}`).trim();
  const nodes = {};
  for (let index = 1; index <= 8; index += 1) nodes[index] = of(`dot-${index}`) || of(`node-${index}`);
  const named = ["accent", "ok", "wait", "bad", "mute", "card", "ink", "line"].map((name) => [name, of(name)]);
  return { ...Object.fromEntries(named), nodes };
}
