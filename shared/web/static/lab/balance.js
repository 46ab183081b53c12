// The balance, always in sight: accepted = processed + parked + waiting (+ lost).

import { count } from "./words.js";

const PARTS = ["processed", "parked", "waiting", "lost"];

/** The shares of a bar, which sum up to 100 when anything was accepted; what is there is never too thin to see. */
export function shares(balance) {
  const parts = PARTS.map((name) => Math.max(0, balance?.[name] ?? 0));
  const sum = parts.reduce((a, b) => a + b, 0);
  if (sum === 0) return PARTS.map(() => 0);
  const least = parts.map((part) => (part > 0 ? Math.max((part / sum) * 100, 0.6) : 0));
  const all = least.reduce((a, b) => a + b, 0);
  return least.map((share) => (share / all) * 100);
}

/**
 * Brings what is marked up to date: `data-balance="accepted"` and so on are texts, `data-balance-bar="processed"` and so
 * on parts of the bar, `data-balance-lost` is shown only when something is proven to be lost.
 */
export function showBalance(root, balance) {
  if (!balance) return;
  for (const name of ["accepted", ...PARTS]) {
    for (const place of root.querySelectorAll(`[data-balance="${name}"]`)) say(place, count(balance[name] ?? 0));
  }
  shares(balance).forEach((share, index) => {
    for (const part of root.querySelectorAll(`[data-balance-bar="${PARTS[index]}"]`)) part.style.width = `${share}%`;
  });
  for (const part of root.querySelectorAll("[data-balance-lost]")) part.hidden = !(balance.lost > 0);
  for (const time of root.querySelectorAll("time[data-balance=as_of]")) {
    const moment = new Date(balance.as_of);
    if (Number.isNaN(moment.getTime())) continue;
    time.dateTime = moment.toISOString();
    say(time, moment.toLocaleTimeString("en-GB"));
  }
}

function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
