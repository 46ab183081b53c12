// A page of something that goes on is brought up to date until nothing goes on any more. Without this script it asks for
// itself again as a whole, and whoever stands on its button loses the place.

import { swap } from "./swap.js";

const EVERY = 2000;

/** Asks for the page and puts its part in the place of the one that is shown; gives what is known then: whether it goes on. */
export async function look(part, known, ask) {
  const answer = await ask();
  if (!answer.ok) return known;
  const html = await answer.text();
  const fresh = new DOMParser().parseFromString(html, "text/html").getElementById(part.id);
  // its session may be over: then it is another page
  if (!fresh) return known;
  const now = { html: fresh.innerHTML, moves: fresh.hasAttribute("data-moves") };
  if (now.html !== known.html) {
    swap(part, fresh);
    part.dispatchEvent(new Event("fresh", { bubbles: true }));
  }
  return now;
}

const fetchPage = () => fetch(location.pathname, { headers: { Accept: "text/html" } });

const part = globalThis.document?.querySelector("[data-moves]");
if (part) {
  let known = { html: null, moves: true };
  const again = async () => {
    try {
      if (!document.hidden) known = await look(part, known, fetchPage);
    } catch {
      // the console is away: it is asked again
    }
    if (known.moves) setTimeout(again, EVERY);
  };
  setTimeout(again, EVERY);
}
