// Four charts of the last 15 minutes, drawn by uPlot (its script sets the global `uPlot`). Faults are shaded and named.

import { colours } from "./flow.js";
import { Series } from "./series.js";
import { count, rate, took } from "./words.js";

const CHARTS = {
  flow: { lines: [["accepted", "accepted", "accent"], ["processed", "processed", "ok"]], say: rate },
  failures: { lines: [["failed", "failed", "bad"], ["redelivered", "redelivered", "wait"]], say: rate },
  queue: { lines: [["ready", "ready", "wait"], ["unacked", "unacked", "accent"]], say: count },
  latency: { lines: [["p50", "p50", "accent"], ["p99", "p99", "wait"]], say: took },
};
const HEIGHT = 172;
/** Above the lines, for the names of faults: so many rows. */
const NAMES = 2;
const NAME_ROW = 13;
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export class Charts {
  constructor(root, history) {
    this.root = root;
    this.history = history;
    this.series = new Series();
    this.plots = [];
    this.visible = false;
    this.drawn = true;
    this.make();
    // Charts that nobody sees are not drawn.
    new IntersectionObserver((seen) => {
      this.visible = seen.some((one) => one.isIntersecting);
      if (this.visible) this.draw();
    }).observe(root);
    document.addEventListener("visibilitychange", () => this.draw());
    new ResizeObserver(() => this.resize()).observe(root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.make());
  }

  /** The last 15 minutes as the console has them: at the start, and after each break. */
  async fetch() {
    try {
      const answer = await fetch(this.history, { headers: { Accept: "application/json" } });
      if (!answer.ok) return;
      this.series.addAll((await answer.json()).seconds);
      this.draw();
    } catch {
      // The console is away: the page says so already, and it is fetched again when it is back.
    }
  }

  second(second) {
    this.series.add(second);
    this.draw();
  }

  make() {
    for (const { plot } of this.plots) plot.destroy();
    const shades = colours(this.root);
    this.plots = [];
    for (const [name, about] of Object.entries(CHARTS)) {
      const figure = this.root.querySelector(`[data-chart="${name}"]`);
      const place = figure?.querySelector(".chart-place");
      if (!place || !globalThis.uPlot) continue;
      const plot = new globalThis.uPlot(this.options(about, place, shades), this.columns(about), place);
      this.plots.push({ plot, about, figure, place });
    }
    this.draw();
  }

  columns(about) {
    return this.series.columns(about.lines.map(([column]) => column));
  }

  options(about, place, shades) {
    const axis = { stroke: shades.mute, grid: { stroke: shades.line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    return {
      width: Math.max(120, place.clientWidth),
      height: HEIGHT,
      padding: [NAMES * NAME_ROW + 4, 16, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "lab" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { range: () => this.series.window() }, y: { range: (_, __, most) => [0, Math.max(most ?? 0, 1) * 1.12] } },
      axes: [
        { ...axis, grid: { show: false }, size: 24, space: 70, values: (_, times) => times.map((t) => clock.format(t * 1000).slice(0, 5)) },
        { ...axis, size: 54, space: 34, values: (_, values) => values.map((value) => about.say(value).replace("/s", "")) },
      ],
      series: [
        {},
        ...about.lines.map(([, label, colour]) => ({ label, stroke: shades[colour], width: 1.6, spanGaps: false, points: { show: false } })),
      ],
      hooks: {
        drawClear: [(plot) => this.shade(plot, shades)],
        setCursor: [(plot) => this.read(plot, about)],
      },
    };
  }

  /** What was broken, and when: behind the lines. */
  shade(plot, shades) {
    const { ctx, bbox } = plot;
    const ratio = globalThis.devicePixelRatio || 1;
    const right = bbox.left + bbox.width;
    ctx.save();
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.font = `${10.5 * ratio}px system-ui, sans-serif`;
    ctx.fillStyle = shades.bad;
    const rows = Array.from({ length: NAMES }, () => []);
    // The newest first: of many, it is the one to be named.
    for (const { name, from, to } of this.series.spans().toReversed()) {
      const x = Math.max(bbox.left, plot.valToPos(from - 0.5, "x", true));
      const end = Math.min(right, plot.valToPos(to + 0.5, "x", true));
      ctx.globalAlpha = 0.12;
      ctx.fillRect(x, bbox.top, Math.max(2 * ratio, end - x), bbox.height);
      ctx.globalAlpha = 1;
      // Names that would lie upon each other take the next row; those that find none are read under the pointer.
      const text = ctx.measureText(name).width;
      const start = Math.max(bbox.left, Math.min(x, right - text));
      const after = start + text + 8 * ratio;
      const row = rows.findIndex((taken) => taken.every((other) => after <= other[0] || other[1] <= start));
      if (row < 0) continue;
      rows[row].push([start, after]);
      ctx.fillText(name, start, bbox.top - (4 + row * NAME_ROW) * ratio);
    }
    ctx.restore();
  }

  draw() {
    if (!this.visible || document.hidden) return;
    for (const { plot, about } of this.plots) {
      plot.setData(this.columns(about));
      this.read(plot, about);
    }
  }

  /** The figures in words: those under the pointer, else the newest. */
  read(plot, about) {
    const made = this.plots.find((one) => one.plot === plot);
    if (!made) return;
    const index = plot.cursor.idx;
    const pointed = index === null || index === undefined ? null : this.series.at(plot.data[0][index]);
    const second = pointed ?? this.series.latest();
    for (const [column] of about.lines) {
      const place = made.figure.querySelector(`[data-value="${column}"]`);
      const text = second ? about.say(second[column] ?? NaN) : "–";
      if (place && place.textContent !== text) place.textContent = text;
    }
    const when = made.figure.querySelector(".chart-when");
    const struck = pointed?.faults?.length > 0 ? ` · ${pointed.faults.join(", ")}` : "";
    const [from, to] = this.series.window();
    const text = pointed ? `${clock.format(pointed.t * 1000)}${struck}` : `last ${Math.ceil((to - from) / 60)} min`;
    if (when && when.textContent !== text) when.textContent = text;
  }

  resize() {
    for (const { plot, place } of this.plots) {
      const width = Math.max(120, place.clientWidth);
      if (width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }
}
