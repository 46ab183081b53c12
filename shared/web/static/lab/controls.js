// Knobs, faults and load without a reload. The page's own forms do it: what they send is sent in the background, and the
// sections of controls are taken from the page that the server answers with. So the server alone
// decides how things look, and without this script the same forms work as forms.

import { swap } from "./swap.js";
import { count } from "./words.js";

/** What the server draws anew: each with its controls. */
const SECTIONS = "#banners, #experiment, #faults, #load, #knobs";
/** Sections are asked for at most this often. */
const OFTEN = 1500;
/** So long what somebody has written into a section is left there, though it was not sent. */
export const PATIENCE = 60000;
/** So long it stands there that something was done; why it was not done stays. */
const DONE = 8000;

/** What of a state is drawn by the server: when it changes, the sections are stale. */
export function drawnByServer(state) {
  const faults = (state.faults ?? []).map((fault) => [fault.id, fault.evidence, fault.healable, fault.until ?? null]);
  const { load, experiment } = state;
  return JSON.stringify([
    faults,
    state.knobs ?? null,
    state.guarantees_off ?? null,
    load ? [load.run, load.rate, load.until] : null,
    experiment ? [experiment.id ?? experiment.name ?? experiment.run, experiment.state ?? null] : null,
    (state.nodes ?? []).map((node) => [node.name, node.state === "dead"]),
  ]);
}

/** Whether the reader writes in it: then it must not change under his hands. Who stands on a button is put there again. */
export function isBusy(section, { activeElement }, now) {
  const writes = /^(INPUT|SELECT|TEXTAREA)$/.test(activeElement?.tagName ?? "");
  if (writes && section.contains(activeElement)) return true;
  return now - Number(section.dataset.edited ?? -Infinity) < PATIENCE;
}

/** What a button says that it has done, `data-done`; `{target}` in it is what the form's field of that name showed. */
export function doneWords(form, submitter) {
  const words = submitter?.getAttribute("data-done") ?? "";
  return words.replace(/\{(\w+)\}/g, (_, name) => {
    const field = form.elements[name];
    return field?.selectedOptions?.[0]?.textContent ?? field?.value ?? "";
  });
}

/** How far the load is: figures, and words that are there or not (`stopping`). */
export function showLoad(root, load) {
  for (const place of root.querySelectorAll("[data-load]")) {
    const what = load?.[place.dataset.load];
    if (Number.isFinite(what)) {
      const text = count(what);
      if (place.textContent !== text) place.textContent = text;
    } else if (typeof what === "boolean") {
      place.hidden = !what;
    }
  }
}

export class Controls {
  constructor({ page = location.pathname, document = globalThis.document, ask = (...what) => fetch(...what) } = {}) {
    Object.assign(this, { page, document, ask, swap });
    this.known = null;
    this.wanted = false;
    /** A section was left as it is, since somebody is at work in it: it is asked for again when the focus goes on. */
    this.passed = false;
    this.asking = false;
    this.asked = 0;
    this.sections = () => [...this.document.querySelectorAll(SECTIONS)];
    if (this.sections().length === 0) return;
    document.addEventListener("submit", (event) => this.submit(event));
    document.addEventListener("input", (event) => {
      event.target.closest(SECTIONS)?.setAttribute("data-edited", Date.now());
    });
    document.addEventListener("focusout", () => {
      if (this.wanted) this.refresh();
    });
    setInterval(() => {
      // What was written and left alone is given up after a while.
      const busy = () => this.sections().some((section) => isBusy(section, this.document, Date.now()));
      if (this.passed && !busy()) this.wanted = true;
      if (this.wanted) this.refresh();
    }, OFTEN);
  }

  state(state) {
    showLoad(this.document, state.load);
    const drawn = drawnByServer(state);
    if (this.known !== null && this.known !== drawn) this.wanted = true;
    this.known = drawn;
  }

  async submit(event) {
    const form = event.target;
    const section = form.closest(SECTIONS);
    // As attributes: a field may be called `method` or `action`.
    if (!section || form.getAttribute("method") !== "post" || event.defaultPrevented) return;
    event.preventDefault();
    const fields = new URLSearchParams(new FormData(form, event.submitter));
    const action = event.submitter?.getAttribute("formaction") ?? form.getAttribute("action");
    // Now: the form is another one when the section was drawn anew.
    const words = doneWords(form, event.submitter);
    // Pressed twice it is done once. Not by disabling the button, which would lose the focus.
    if (form.hasAttribute("aria-busy")) return;
    form.setAttribute("aria-busy", "true");
    try {
      const answer = await this.ask(action, {
        method: "POST",
        body: fields,
        headers: { "X-CSRF-Token": fields.get("csrf") ?? "", Accept: "text/html" },
      });
      section.removeAttribute("data-edited");
      this.take(await answer.text(), section, answer.ok, words);
    } catch {
      this.say("The console did not answer: nobody knows yet whether it was done.", true);
      this.wanted = true;
    } finally {
      form.removeAttribute("aria-busy");
    }
  }

  async refresh() {
    const now = Date.now();
    if (this.asking || now - this.asked < OFTEN || this.document.hidden) return;
    this.asking = true;
    this.asked = now;
    this.wanted = false;
    try {
      const answer = await this.ask(this.page, { headers: { Accept: "text/html" } });
      if (answer.ok) this.take(await answer.text(), null, true);
    } catch {
      this.wanted = true;
    } finally {
      this.asking = false;
    }
  }

  /** Puts the sections of a page in the place of those that are shown, and says what was done, or why it was not. */
  take(html, done, well, words = "") {
    const page = new DOMParser().parseFromString(html, "text/html");
    if (well) {
      this.passed = false;
      for (const section of this.sections()) {
        const fresh = page.getElementById(section.id);
        if (!fresh || fresh.innerHTML === section.innerHTML) continue;
        if (section !== done && isBusy(section, this.document, Date.now())) {
          this.passed = true;
          continue;
        }
        this.swap(section, fresh);
      }
    }
    if (done === null) return;
    const said = well ? null : page.querySelector(".error-page p");
    if (said) this.say(said.textContent.trim(), !well);
    else this.say(well ? words : "The console refused it.", !well);
  }

  say(text, bad) {
    const place = this.document.getElementById("said");
    if (!place) return;
    place.textContent = text;
    place.hidden = text === "";
    place.classList.toggle("notice-bad", bad);
    place.classList.toggle("notice-ok", !bad);
    clearTimeout(this.silence);
    if (text !== "" && !bad) this.silence = setTimeout(() => this.say("", false), DONE);
  }
}
