// The lab's page: puts the rooms together. Each works without the others, and the page without all of them.

import { showBalance, showRuns } from "./balance.js";
import { Charts } from "./charts.js";
import { Controls } from "./controls.js";
import { Flow } from "./flow.js";
import { Live } from "./live.js";
import { Model } from "./model.js";

// What only a script can show stands there hidden; the table that is for readers without one says the same.
for (const part of document.querySelectorAll("[data-script]")) part.hidden = false;
for (const part of document.querySelectorAll("#flow")) part.hidden = true;

const pictureRoot = document.getElementById("picture");
const chartsRoot = document.getElementById("charts");
const model = new Model();
// Without it nobody takes what the model gives, and nothing is told to it.
const flow = pictureRoot && new Flow(pictureRoot, model);
const charts = chartsRoot && new Charts(chartsRoot, "/lab/api/history");
const controls = new Controls();

const hear = {
  state(state) {
    if (flow) model.state(state, Date.now());
    flow?.moved();
    showBalance(document, state);
    showRuns(document, state);
    controls.state(state);
  },
  frame(frame) {
    if (!flow) return;
    model.frame(frame, Date.now());
    flow.moved();
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
    const place = document.getElementById("live");
    if (!place) return;
    place.textContent = is ? "Live." : `Not live: ${why}.`;
    place.className = is ? "ok" : "wait";
  },
  resumed: () => charts?.fetch(),
});

charts?.fetch();
const unseen = () => {
  live.stop();
  // What they had in hand then says nothing of what they have when they are seen again.
  model.nodes.clear();
};
const look = () => (document.hidden ? unseen() : live.start());
document.addEventListener("visibilitychange", look);
addEventListener("pagehide", unseen);
addEventListener("pageshow", look);
look();
setInterval(() => live.tick(), 1000);
