// The lab's page: puts the rooms together. Each works without the others, and the page without all of them.

import { showBalance } from "./balance.js";
import { Charts } from "./charts.js";
import { Controls } from "./controls.js";
import { Flow } from "./flow.js";
import { Live } from "./live.js";
import { Model } from "./model.js";

const flowRoot = document.getElementById("flow");
const chartsRoot = document.getElementById("charts");
const model = new Model();
const flow = flowRoot && new Flow(flowRoot, model);
const charts = chartsRoot && new Charts(chartsRoot, "/lab/api/history");
const controls = new Controls();

const hear = {
  state(state) {
    model.state(state, Date.now());
    flow?.moved();
    showBalance(document, state.balance);
    controls.state(state);
  },
  frame(frame) {
    model.frame(frame, Date.now());
    flow?.moved();
  },
  second(second) {
    charts?.second(second);
  },
};

const live = new Live({
  source: () => new EventSource("/lab/live"),
  tell: (kind, what) => hear[kind](what),
  status(is, why) {
    flow?.status(is, why);
    for (const place of document.querySelectorAll("[data-live]")) {
      place.textContent = is ? "live" : `not live: ${why}`;
      place.classList.toggle("ok", is);
      place.classList.toggle("bad", !is);
    }
  },
  resumed: () => charts?.fetch(),
});

charts?.fetch();
live.start();
setInterval(() => live.tick(), 1000);
