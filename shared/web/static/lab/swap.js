// A part of a page is drawn anew by the server, and its reader stays where he was.

/** By what an element is known again in a page that is drawn anew. */
function key(element) {
  const named = (name) => element?.getAttribute?.(name);
  return element?.id || named("name") || named("aria-label") || element?.textContent?.trim();
}

/** Whoever stood on a button stays there, as far as it is still there; what was unfolded stays so. */
export function swap(section, fresh) {
  const { activeElement } = section.ownerDocument;
  const stood = section.contains(activeElement) ? key(activeElement) : null;
  const open = new Set([...section.querySelectorAll("details[open]")].map((one) => key(one.querySelector("summary"))));
  section.replaceChildren(...section.ownerDocument.importNode(fresh, true).childNodes);
  for (const one of section.querySelectorAll("details")) {
    if (open.has(key(one.querySelector("summary")))) one.open = true;
  }
  if (stood === null) return;
  const same = [...section.querySelectorAll("button, input, select, summary, a")].find((one) => key(one) === stood);
  same?.focus();
}
