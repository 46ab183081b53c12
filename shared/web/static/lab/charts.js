// Four charts of the last 15 minutes, drawn by uPlot (its script sets the global `uPlot`). Faults are shaded and named.

import { colours } from "./flow.js";
import { height, lonely, Series, timeMarks, timeName, WHOLE } from "./series.js";
import { count, rate, took } from "./words.js";

const CHARTS = {
  flow: { lines: [["accepted", "accepted", "accent"], ["processed", "processed", "ok"]], say: rate },
  failures: { lines: [["failed", "failed", "bad"], ["redelivered", "redelivered", "wait"]], say: rate },
  queue: { lines: [["ready", "ready", "wait"], ["unacked", "unacked", "accent"]], say: count },
  latency: { lines: [["p50", "p50", "accent"], ["p99", "p99", "wait"]], say: took, times: true },
};
const HEIGHT = 172;
/** Above the lines, for the names of faults: so many rows. */
const NAMES = 2;
const NAME_ROW = 13;
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** How wide an axis must be for what stands at it. */
function wide(values) {
  const longest = Math.max(0, ...(values ?? []).map((text) => text?.length ?? 0));
  return Math.max(54, 16 + 6.5 * longest);
}

/** The marks of a chart's axis, and their names. */
function marks({ times, say }) {
  if (times) return { splits: (_, __, ___, top) => timeMarks(top), values: (_, all) => all.map(timeName) };
  return { space: 34, incrs: WHOLE, values: (_, all) => all.map((value) => say(value).replace("/s", "")) };
}

/** A line, with points where it would not be seen. */
function line(label, colour) {
  const points = { show: false, size: 4, width: 0, fill: colour, filter: (plot, index) => lonely(plot.data[index]) };
  return { label, stroke: colour, width: 1.6, spanGaps: false, points };
}

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
    const [times, ...lines] = this.series.columns(about.lines.map(([column]) => column));
    return [times, ...(about.times ? lines.map((values) => values.map((ms) => height(ms ?? NaN))) : lines)];
  }

  options(about, place, shades) {
    const axis = { stroke: shades.mute, grid: { stroke: shades.line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    return {
      width: Math.max(120, place.clientWidth),
      height: HEIGHT,
      padding: [NAMES * NAME_ROW + 4, 16, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "lab" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { range: () => this.series.window() }, y: { range: (_, __, most) => [0, Math.max(most ?? 0, about.times ? 2 : 1) * 1.12] } },
      axes: [
        { ...axis, grid: { show: false }, size: 24, space: 70, values: (_, times) => times.map((t) => clock.format(t * 1000).slice(0, 5)) },
        { ...axis, size: (_, values) => wide(values), ...marks(about) },
      ],
      series: [{}, ...about.lines.map(([, label, colour]) => line(label, shades[colour]))],
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

  /** What is said is of the newest second also where nobody sees the lines: it is read, too, and searched. */
  draw() {
    if (document.hidden) return;
    for (const { plot, about } of this.plots) {
      if (this.visible) plot.setData(this.columns(about));
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
    const whole = `last ${Math.ceil((to - from) / 60)} min`;
    const text = second ? `${pointed ? "" : `${whole} · `}${clock.format(second.t * 1000)}${struck}` : whole;
    if (when && when.textContent !== text) when.textContent = text;
  }

  resize() {
    for (const { plot, place } of this.plots) {
      const width = Math.max(120, place.clientWidth);
      if (width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }
}
