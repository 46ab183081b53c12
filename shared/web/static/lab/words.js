// How figures are said.

const grouped = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

/** 12408 as 12,408. What is not known is a dash. */
export function count(number) {
  return Number.isFinite(number) ? grouped.format(number) : "–";
}

/** Per second: a slow trickle with one decimal, anything else whole. */
export function rate(perSecond) {
  if (!Number.isFinite(perSecond)) return "–";
  if (perSecond > 0 && perSecond < 9.95) {
    const tenths = Math.round(perSecond * 10) / 10;
    return tenths === 0 ? "< 0.1/s" : `${tenths}/s`;
  }
  return `${grouped.format(perSecond)}/s`;
}

/** A length of time, in the unit in which people say it. */
export function took(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 9.95 ? Math.round(seconds * 10) / 10 : Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** A count with its noun: 1 message, 2 messages. */
export function some(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}
