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
 * Brings the page's balance up to date: `data-is="accepted"` and so on are figures, `data-share="processed"` and so on
 * parts of the bar. The state says of which run it is.
 */
export function showBalance(root, state) {
  const { balance } = state;
  const figures = root.getElementById("balance");
  if (!balance) return;
  for (const name of ["accepted", ...PARTS]) {
    for (const place of figures?.querySelectorAll(`[data-is="${name}"]`) ?? []) say(place, count(balance[name] ?? 0));
  }
  for (const place of figures?.querySelectorAll("[data-is=run]") ?? []) say(place, balance.run ? ` in ${balance.run}` : "");
  figures?.querySelector("[data-is=lost]")?.classList.toggle("bad", balance.lost > 0);
  shares(balance).forEach((share, index) => {
    for (const part of root.querySelectorAll(`[data-share="${PARTS[index]}"]`)) part.style.width = `${share}%`;
  });
  const moment = new Date(balance.as_of);
  const place = root.getElementById("as-of")?.firstChild;
  if (!balance.as_of || Number.isNaN(moment.getTime()) || place?.nodeType !== 3) return;
  const more = state.counting ? "; older messages are still being added" : "";
  const text = `As of ${moment.toLocaleTimeString("en-GB")}${more}. `;
  if (place.nodeValue !== text) place.nodeValue = text;
}

function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
