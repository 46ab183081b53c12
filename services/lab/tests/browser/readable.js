// What cannot be read well on this page: texts whose contrast with what is behind them is too small (WCAG 2.2, AA).
const parts = (colour) => {
  const numbers = (colour.match(/-?[\d.]+(e-?\d+)?/g) ?? []).map(Number);
  const [r, g, b, alpha = 1] = numbers;
  return colour.startsWith("color(") ? [r * 255, g * 255, b * 255, alpha] : [r, g, b, alpha];
};
const over = ([r, g, b, alpha], [R, G, B]) => [r * alpha + R * (1 - alpha), g * alpha + G * (1 - alpha), b * alpha + B * (1 - alpha), 1];
const light = (colour) => {
  const [r, g, b] = colour.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  const box = element.closest(".flow-box > text")?.parentNode.querySelector("rect");
  const layers = box ? [parts(getComputedStyle(box).fill)] : [];
  for (let one = element; one && layers.at(-1)?.[3] !== 1; one = one.parentElement) {
    const layer = parts(getComputedStyle(one).backgroundColor);
    if (layer[3] > 0) layers.push(layer);
  }
  return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
};

const bad = new Set();
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const text = texts.currentNode.textContent.trim();
  const element = texts.currentNode.parentElement;
  const { width } = element.getBoundingClientRect();
  // What is there for ears only, and what cannot be used just now, need not be seen.
  const unseen = width <= 1 || element.closest(":disabled, .visually-hidden, option, script, style, title");
  if (text === "" || unseen || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
  const style = getComputedStyle(element);
  const colour = parts(element instanceof SVGElement ? style.fill : style.color);
  for (let one = element; one; one = one.parentElement) colour[3] *= Number(getComputedStyle(one).opacity);
  const below = behind(element);
  const [a, b] = [light(over(colour, below)), light(below)];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (contrast < (large ? 3 : 4.5)) bad.add(`${contrast.toFixed(2)}: ${text.slice(0, 40)} (${element.className?.baseVal ?? element.className})`);
}
return [...bad];
