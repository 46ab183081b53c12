// The last 15 minutes, second by second: what the charts are drawn from. Knows nothing of how.

/** Seconds that are kept. */
export const KEPT = 900;
/** Fewer are never shown, though less is known: a line of a few seconds tells nothing. */
export const LEAST = 180;

/** Steps of an axis of counts: whole numbers, so that none stands there twice. */
export const WHOLE = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

/** Where an axis of times has its marks, in ms, and what they are called. */
const TIMES = [
  [1, "1 ms"],
  [10, "10 ms"],
  [100, "100 ms"],
  [1000, "1 s"],
  [10000, "10 s"],
  [60000, "1 min"],
  [600000, "10 min"],
  [3600000, "1 h"],
  [36000000, "10 h"],
];

/** The height of a time (ms): each step up is ten times as long, so that one of minutes hides none of milliseconds. */
export function height(ms) {
  return Number.isFinite(ms) ? Math.log10(Math.max(1, ms)) : null;
}

/** The marks up to this height: how high each stands. */
export function timeMarks(top) {
  return TIMES.map(([ms]) => height(ms)).filter((mark) => mark <= top);
}

/** What the mark at this height is called. */
export function timeName(mark) {
  return TIMES.find(([ms]) => Math.abs(height(ms) - mark) < 1e-6)?.[1] ?? "";
}

/** Places of a column where a line alone would not be seen: what is there has nothing beside it. None: null. */
export function lonely(column) {
  const missing = (index) => index >= 0 && index < column.length && (column[index] ?? null) === null;
  const found = [...column.keys()].filter((index) => !missing(index) && (missing(index - 1) || missing(index + 1)));
  return found.length > 0 ? found : null;
}

export class Series {
  constructor(kept = KEPT) {
    this.kept = kept;
    this.seconds = new Map();
    this.newest = null;
  }

  /** One second. Told again it replaces what was there: the console tells a second once, as a whole. */
  add(second) {
    if (!Number.isFinite(second?.t)) return;
    if (this.newest !== null && second.t <= this.newest - this.kept) return;
    this.seconds.set(second.t, second);
    if (this.newest === null || second.t > this.newest) this.newest = second.t;
    if (this.seconds.size > 2 * this.kept) this.forget();
  }

  /** Many, as history tells them. */
  addAll(seconds) {
    for (const second of seconds ?? []) this.add(second);
  }

  forget() {
    for (const t of this.seconds.keys()) {
      if (t <= this.newest - this.kept) this.seconds.delete(t);
    }
  }

  /** Columns for the names, one step a second; a second of which nothing is known is a gap and not zero. */
  columns(names) {
    if (this.newest === null) return [[], ...names.map(() => [])];
    const times = Array.from({ length: this.kept }, (_, index) => this.newest - this.kept + 1 + index);
    const column = (name) => times.map((t) => this.seconds.get(t)?.[name] ?? null);
    return [times, ...names.map(column)];
  }

  /** From when to when there is something to be shown. */
  window() {
    if (this.newest === null) return [0, LEAST];
    const oldest = Math.min(...this.seconds.keys(), this.newest - Math.min(LEAST, this.kept) + 1);
    return [Math.max(oldest, this.newest - this.kept + 1), this.newest];
  }

  /** From when to when each fault was active, within what is shown. */
  spans() {
    if (this.newest === null) return [];
    const open = new Map();
    const done = [];
    const first = this.newest - this.kept + 1;
    for (let t = first; t <= this.newest; t += 1) {
      const second = this.seconds.get(t);
      // Of a gap nothing is known: a fault that is there before and after it was there in between.
      if (!second) continue;
      const active = new Set(second.faults ?? []);
      for (const name of active) {
        const span = open.get(name);
        if (span) span.to = t;
        else open.set(name, { name, from: t, to: t });
      }
      for (const [name, span] of open) {
        if (active.has(name)) continue;
        done.push(span);
        open.delete(name);
      }
    }
    return [...done, ...open.values()].toSorted((a, b) => a.from - b.from || a.name.localeCompare(b.name));
  }

  /** The second that is shown at a time, if it is known. */
  at(t) {
    return this.seconds.get(Math.round(t)) ?? null;
  }

  latest() {
    return this.newest === null ? null : this.seconds.get(this.newest);
  }
}
