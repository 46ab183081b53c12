// What a page shows, and when, by this machine's clock: rows with their states, nodes of the flow with theirs, dots with
// their places. It runs before the page's own scripts, so that nobody's slowness but theirs is counted.
(() => {
  const noted = { rows: {}, nodes: {}, dots: [], events: [] };

  const look = () => {
    const now = Date.now();
    for (const row of document.querySelectorAll("tr[data-message]")) {
      const id = row.dataset.message;
      noted.rows[id] ??= now;
      const state = row.querySelector(".state");
      if (state) noted.rows[`${id} ${state.textContent}`] ??= now;
    }
    for (const node of document.querySelectorAll(".flow-node")) {
      const [name, note] = node.querySelector("title").textContent.split(": ");
      const state = /is-(\w+)/.exec(node.getAttribute("class"))?.[1];
      const known = (noted.nodes[name] ??= []);
      if (known.at(-1)?.state !== state) known.push({ state, at: now });
      known.at(-1).note = note;
    }
  };
  const all = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(document, all);

  const { arc } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.arc = function (x, y, ...rest) {
    if (this.canvas.id === "flow-dots") noted.dots.push([Date.now(), x, y]);
    return arc.call(this, x, y, ...rest);
  };

  /** What nodes announce, as the console passes it on, each event with its own time; waits until it hears. */
  window.hear = async () => {
    const source = new EventSource("/lab/live");
    source.addEventListener("frame", ({ data }) => {
      for (const frame of [JSON.parse(data)].flat()) {
        for (const event of frame.sample ?? []) noted.events.push({ ...event, node: frame.node });
      }
    });
    await new Promise((open) => source.addEventListener("open", open, { once: true }));
  };

  /** When a dot was first seen on a line of this kind after that; null: not yet. */
  window.dotOn = (kind, since) => {
    const points = [...document.querySelectorAll(`.flow-line-${kind}`)].flatMap((line) =>
      Array.from({ length: Math.ceil(line.getTotalLength()) + 1 }, (_, at) => line.getPointAtLength(at)),
    );
    const near = (x, y) => points.some((point) => Math.hypot(point.x - x, point.y - y) < 2);
    return noted.dots.find(([at, x, y]) => at >= since && near(x, y))?.[0] ?? null;
  };

  window.noted = noted;
})();
