// Comfort for writing: Enter sends, Shift+Enter begins a line, and spaces alone are not sent.
(() => {
  const form = document.querySelector("form.send");
  const text = form?.elements.message;
  if (!text) return;
  const check = () => text.setCustomValidity(text.value.trim() ? "" : "Write something first.");
  text.addEventListener("input", check);
  form.querySelector("button").addEventListener("click", check);
  // On a touch screen, Enter is how lines are made.
  if (matchMedia("(pointer: coarse)").matches) return;
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    check();
    form.requestSubmit();
  });
  for (const hint of document.querySelectorAll("[data-script-hint]")) hint.hidden = false;
})();
