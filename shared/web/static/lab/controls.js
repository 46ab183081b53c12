// Knobs, faults and load without a reload. The page's own forms do it: what they send is sent in the background, and the
// sections of controls are taken from the page that the server answers with. So the server alone
// decides how things look, and without this script the same forms work as forms.

/** What the server draws anew: each with its controls. */
const SECTIONS = "#faults, #load, #knobs, #runs";
/** Sections are asked for at most this often. */
const OFTEN = 1500;
/** While messages are counted, the balance of runs is drawn anew this often. */
const SUMS_OFTEN = 10000;
/** So long what somebody has written into a section is left there, though it was not sent. */
export const PATIENCE = 60000;

/** What of a state is drawn by the server: when it changes, the sections are stale. */
export function drawnByServer(state) {
  const faults = (state.faults ?? []).map((fault) => [fault.id, fault.evidence, fault.healable]);
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

/** By what an element is known again in a page that is drawn anew. */
function key(element) {
  const named = (name) => element?.getAttribute?.(name);
  return element?.id || named("name") || named("aria-label") || element?.textContent?.trim();
}

export class Controls {
  constructor({ page = location.pathname, document = globalThis.document, ask = (...what) => fetch(...what) } = {}) {
    Object.assign(this, { page, document, ask });
    this.known = null;
    this.wanted = false;
    this.asking = false;
    this.asked = 0;
    this.sections = () => [...this.document.querySelectorAll(SECTIONS)];
    if (this.sections().length === 0) return;
    document.addEventListener("submit", (event) => this.submit(event));
    document.addEventListener("input", (event) => {
      event.target.closest(SECTIONS)?.setAttribute("data-edited", Date.now());
      this.echo(event.target);
    });
    document.addEventListener("focusout", () => {
      if (this.wanted) this.refresh();
    });
    setInterval(() => {
      if (this.wanted) this.refresh();
    }, OFTEN);
  }

  /** A range says what it stands at. */
  echo(input) {
    if (!input.id) return;
    for (const output of this.document.querySelectorAll(`output[for="${CSS.escape(input.id)}"]`)) {
      output.textContent = `${input.value}${output.dataset.unit ?? ""}`;
    }
  }

  state(state) {
    for (const place of this.document.querySelectorAll("[data-load]")) {
      const figure = state.load?.[place.dataset.load];
      const text = Number.isFinite(figure) ? figure.toLocaleString("en-GB") : "–";
      if (place.textContent !== text) place.textContent = text;
    }
    const { accepted, processed, parked } = state.balance ?? {};
    const sums = [accepted, processed, parked].join();
    if (this.sums !== undefined && this.sums !== sums && Date.now() - this.asked > SUMS_OFTEN) this.wanted = true;
    this.sums = sums;
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
      this.take(await answer.text(), section, answer.ok);
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

  /** Puts the sections of a page in the place of those that are shown, and says what that page says. */
  take(html, done, well) {
    const page = new DOMParser().parseFromString(html, "text/html");
    if (well) {
      for (const section of this.sections()) {
        const fresh = page.getElementById(section.id);
        if (!fresh || fresh.innerHTML === section.innerHTML) continue;
        if (section !== done && isBusy(section, this.document, Date.now())) {
          this.wanted = true;
          continue;
        }
        this.swap(section, fresh);
      }
    }
    if (done === null) return;
    const said = page.querySelector("[data-flash]") ?? (well ? null : page.querySelector(".error-page p"));
    if (said) this.say(said.textContent.trim(), !well);
    else this.say(well ? "" : "The console refused it.", !well);
  }

  /** Whoever stood on a button stays there, as far as it is still there; what was unfolded stays so. */
  swap(section, fresh) {
    const stood = section.contains(this.document.activeElement) ? key(this.document.activeElement) : null;
    const open = new Set([...section.querySelectorAll("details[open]")].map((one) => key(one.querySelector("summary"))));
    section.replaceChildren(...this.document.importNode(fresh, true).childNodes);
    for (const one of section.querySelectorAll("details")) {
      if (open.has(key(one.querySelector("summary")))) one.open = true;
    }
    if (stood === null) return;
    const same = [...section.querySelectorAll("button, input, select, summary, a")].find((one) => key(one) === stood);
    same?.focus();
  }

  say(text, bad) {
    const place = this.document.getElementById("said");
    if (!place) return;
    place.textContent = text;
    place.hidden = text === "";
    place.classList.toggle("notice-bad", bad);
  }
}
