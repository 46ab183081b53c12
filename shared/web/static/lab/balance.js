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
 * parts of the bar. Of which run it is, or of all messages, changes with the load: `data-is="run"` says it.
 */
export function showBalance(root, state) {
  const { balance } = state;
  const figures = root.getElementById("balance");
  if (!balance) return;
  if (figures) figures.dataset.run = balance.run ?? "";
  for (const place of figures?.querySelectorAll("[data-is=run]") ?? []) say(place, balance.run ? ` in ${balance.run}` : "");
  const discarded = balance.discarded > 0 ? `, ${count(balance.discarded)} discarded` : "";
  for (const place of figures?.querySelectorAll("[data-is=discarded]") ?? []) say(place, discarded);
  for (const name of ["accepted", ...PARTS]) {
    for (const place of figures?.querySelectorAll(`[data-is="${name}"]`) ?? []) say(place, count(balance[name] ?? 0));
  }
  figures?.querySelector("[data-is=lost]")?.classList.toggle("bad", balance.lost > 0);
  shares(balance).forEach((share, index) => {
    for (const part of root.querySelectorAll(`[data-share="${PARTS[index]}"]`)) part.style.width = `${share}%`;
  });
  const place = root.getElementById("as-of")?.firstChild;
  if (place?.nodeType !== 3) return;
  const counted = balance.as_of ? `As of ${new Date(balance.as_of).toLocaleTimeString("en-GB")}` : "Nothing was counted yet";
  const adding = state.counting ? "; older messages are still being added" : "";
  const text = `${counted}${adding}${state.uncounted ? `; not counted since, because ${state.uncounted}` : ""}. `;
  if (place.nodeValue !== text) place.nodeValue = text;
}

/** The same of the newest runs, row by row: all messages, then each run. */
export function showRuns(root, { all, runs }) {
  const rows = root.getElementById("runs-table")?.tBodies[0];
  if (!rows || !all) return;
  const wanted = [{ ...all, run: "all messages" }, ...(runs ?? [])];
  wanted.forEach((balance, index) => {
    const row = rows.rows[index] ?? rows.insertRow();
    ["run", "accepted", ...PARTS].forEach((name, column) => {
      const cell = row.cells[column] ?? row.insertCell();
      if (name !== "run") {
        cell.className = "n";
        say(cell, count(balance[name] ?? 0));
      } else if (cell.textContent !== balance.run) {
        cell.replaceChildren(index === 0 ? balance.run : linked(root, balance.run));
      }
    });
  });
  while (rows.rows.length > wanted.length) rows.deleteRow(-1);
}

/** A run, with the way to its messages. */
function linked(root, run) {
  const link = root.createElement("a");
  link.href = `/lab/messages?run=${encodeURIComponent(run)}`;
  link.textContent = run;
  return link;
}

function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
