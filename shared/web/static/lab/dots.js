// The canvas above the drawing: dots that move along lines, and streams where there are too many of them.
//
// It draws only while something moves, and never more than it has time for: when frames come late, it draws every
// second one.

import { at } from "./layout.js";

/** More at once are not drawn. */
const MOST = 500;
/** A frame that takes longer than this is a reason to draw fewer of them. */
const BUDGET = 8;
const RADIUS = 4.5;
/** Of the dashes of a stream, in pixels a second. */
const SPEED = 110;

export class Dots {
  constructor(canvas, still) {
    this.canvas = canvas;
    this.still = still;
    this.pen = canvas.getContext("2d");
    this.trips = [];
    this.streams = [];
    this.paths = new Map();
    this.colours = {};
    this.asked = null;
    this.cost = 0;
    this.odd = false;
    this.drawn = 0;
  }

  /** After the drawing has changed its size, or the reader the colours. */
  fit(layout, colours) {
    this.layout = layout;
    this.colours = colours;
    this.paths.clear();
    const scale = Math.min(globalThis.devicePixelRatio || 1, 2);
    this.scale = scale;
    this.canvas.width = Math.round(layout.width * scale);
    this.canvas.height = Math.round(layout.height * scale);
    this.canvas.style.width = `${layout.width}px`;
    this.canvas.style.height = `${layout.height}px`;
    this.wake();
  }

  add(trips) {
    if (this.still() || document.hidden) return;
    const room = MOST - this.trips.length;
    if (room > 0) this.trips.push(...(trips.length > room ? trips.slice(0, room) : trips));
    this.wake();
  }

  /** Lines with their rates; none while single dots can be followed. */
  flow(streams) {
    this.streams = this.still() ? [] : streams;
    this.wake();
  }

  wake() {
    if (this.asked !== null || !this.layout) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = null;
      this.draw();
    });
  }

  draw() {
    this.odd = !this.odd;
    if (this.cost > BUDGET && this.odd) {
      this.wake();
      return;
    }
    const begun = performance.now();
    const now = Date.now();
    const { pen, scale } = this;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, this.layout.width, this.layout.height);
    for (const stream of this.streams) this.drawStream(stream, now);
    this.trips = this.trips.filter((trip) => now < trip.start + trip.ms && now > trip.start - 5000);
    for (const trip of this.trips) {
      if (now >= trip.start) this.drawDot(trip, now);
    }
    this.drawn += 1;
    this.cost = this.cost * 0.9 + (performance.now() - begun) * 0.1;
    if (this.trips.length > 0 || this.streams.length > 0) this.wake();
  }

  drawDot(trip, now) {
    const line = this.layout.lines[trip.line];
    if (!line) return;
    const share = (now - trip.start) / trip.ms;
    const [x, y] = at(line, share * (2 - share));
    const { pen } = this;
    const own = trip.colour === null ? null : this.colours.nodes[trip.colour];
    const colour = trip.look === "message" ? (own ?? this.colours.accent) : this.colours[trip.look];
    pen.beginPath();
    pen.arc(x, y, RADIUS, 0, 2 * Math.PI);
    if (trip.look === "hollow") {
      pen.strokeStyle = this.colours.mute;
      pen.lineWidth = 1.5;
      pen.stroke();
      return;
    }
    pen.fillStyle = colour;
    pen.fill();
    // A dot upon a line, or upon another dot, still has an edge.
    pen.strokeStyle = this.colours.card;
    pen.lineWidth = 1;
    pen.stroke();
  }

  drawStream({ line, width, colour }, now) {
    const path = this.path(line);
    if (!path) return;
    const { pen } = this;
    pen.lineCap = "round";
    pen.lineWidth = width;
    pen.strokeStyle = this.colours[colour] ?? this.colours.nodes[colour] ?? this.colours.accent;
    pen.globalAlpha = 0.28;
    pen.setLineDash([]);
    pen.stroke(path);
    pen.globalAlpha = 0.75;
    pen.lineWidth = Math.max(1.5, width * 0.45);
    pen.setLineDash([2, 14]);
    pen.lineDashOffset = -((now / 1000) * SPEED) % 1600;
    pen.stroke(path);
    pen.setLineDash([]);
    pen.globalAlpha = 1;
  }

  path(name) {
    let path = this.paths.get(name);
    const line = this.layout.lines[name];
    if (!path && line) {
      path = new Path2D(line.drawn);
      this.paths.set(name, path);
    }
    return path;
  }
}

/** How thick a line of this rate is: 1/s is a hair, 2,000/s a band. */
export function thickness(perSecond) {
  if (!(perSecond > 0)) return 0;
  return Math.min(14, 1.5 + 3.6 * Math.log10(1 + perSecond / 4));
}
