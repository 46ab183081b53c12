// Keeps the rows, figures and banners of a page as they are now. Each message is the whole state, so
// nothing is mended after a gap; a row is known by its message. Without this the page is as it was loaded.
const parsed = (html) => {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
};
const fresh = (element) => element.dispatchEvent(new CustomEvent("fresh", { bubbles: true }));
const fill = (element, html) => {
  if (!element || element.dataset.said === html) return;
  element.dataset.said = html;
  element.replaceChildren(parsed(html));
  fresh(element);
};

const follow = () => {
  const table = document.querySelector("table[data-live]");
  const said = document.getElementById("live");
  if (!table || !said || !window.EventSource) return;
  const body = table.tBodies[0];
  const empty = document.querySelector("p.empty[data-empty]");
  const node = document.querySelector(".answered .node")?.textContent;
  const known = new Map();

  const rows = (html) => {
    const before = new Map([...body.rows].map((row) => [row.dataset.message, row]));
    const first = known.size === 0;
    const now = [...parsed(`<table><tbody>${html}</tbody></table>`).querySelectorAll("tr")].map((row) => {
      const id = row.dataset.message;
      const old = before.get(id);
      const text = row.outerHTML;
      if (old && known.get(id) === text) return old;
      if (old?.querySelector("details[open]")) row.querySelector("details")?.setAttribute("open", "");
      if (!old && !first) row.classList.add("new");
      known.set(id, text);
      return row;
    });
    const kept = new Set(now.map((row) => row.dataset.message));
    for (const id of known.keys()) if (!kept.has(id)) known.delete(id);
    if (now.length === body.rows.length && now.every((row, n) => row === body.rows[n])) return;
    body.replaceChildren(...now);
    table.hidden = now.length === 0;
    if (empty) empty.hidden = now.length > 0;
    fresh(body);
  };

  const say = (live, words) => {
    said.hidden = false;
    said.className = live ? "ok" : "wait";
    if (said.textContent !== words) said.textContent = words;
  };
  const tell = (state) => {
    const rate = state.rate ? `, ${state.rate} a second${state.sample ? ": a sample" : ""}` : "";
    say(state.live, state.live ? `live${rate}` : `not live (Redis is away: ${state.why})`);
  };

  let source;
  const close = () => {
    if (!source) return;
    source.close();
    source = undefined;
    say(false, "not live (connecting)");
  };
  const open = () => {
    if (source || document.hidden) return;
    const opened = new EventSource(table.dataset.live);
    source = opened;
    opened.addEventListener("state", (event) => {
      const state = JSON.parse(event.data);
      if (state.rows !== undefined) rows(state.rows);
      fill(document.getElementById("banners"), state.banners);
      for (const [id, html] of Object.entries(state.parts)) fill(document.getElementById(id), html);
      const figures = state.live && node ? state.nodes[node] : undefined;
      if (figures) {
        fill(document.getElementById("done"), figures.done);
        if (figures.last) fill(document.getElementById("last"), figures.last);
      }
      tell(state);
    });
    opened.addEventListener("error", () => {
      say(false, "not live (no node answers)");
      // A browser tries again by itself, but not after an answer that is an error.
      if (opened.readyState !== EventSource.CLOSED || source !== opened) return;
      source = undefined;
      setTimeout(open, 3000);
    });
  };
  // A browser has six connections to a site for all its pages: one that nobody sees must not hold one.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
};

follow();
