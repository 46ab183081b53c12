// Where everything stands, from the width alone: boxes, and lines between them. Draws nothing.
//
// Wide: senders left, exchange and queue in the middle, receivers right, dead letters below. Narrow: the same from top
// to bottom. A line is a row of points with its length, so that a dot finds its place without the browser's help.

/** Below this width the boxes stand one above the other. */
export const NARROW = 700;
/** More nodes of a side than this get one line each. */
const ROOMY = 6;
/** More than this are not drawn: the last place says how many there are. */
export const SHOWN = 16;

const STEPS = 28;

/** Places for nodes (their names, in order) within a width. */
export function layout(width, senders, receivers) {
  const left = senders.slice(0, SHOWN);
  const right = receivers.slice(0, SHOWN);
  const made = width < NARROW ? tall(width, left, right) : wide(width, left, right);
  made.hidden = { sender: senders.length - left.length, receiver: receivers.length - right.length };
  return made;
}

/** The place on a line after this share of it, from 0 to 1. */
export function at(line, share) {
  const { points, lengths, length } = line;
  const wanted = Math.min(Math.max(share, 0), 1) * length;
  let low = 0;
  let high = lengths.length - 1;
  while (low + 1 < high) {
    const middle = (low + high) >> 1;
    if (lengths[middle] <= wanted) low = middle;
    else high = middle;
  }
  const part = lengths[high] - lengths[low];
  const between = part > 0 ? (wanted - lengths[low]) / part : 1;
  const [x0, y0] = points[low];
  const [x1, y1] = points[high];
  return [x0 + (x1 - x0) * between, y0 + (y1 - y0) * between];
}

/** A line along cubic curves. From the end of one to the start of the next it jumps: through a box, unseen. */
function curve(...curves) {
  const points = [];
  const lengths = [];
  let length = 0;
  for (const [a, b, c, d] of curves) {
    for (let step = 0; step <= STEPS; step += 1) {
      const t = step / STEPS;
      const s = 1 - t;
      const [k0, k1, k2, k3] = [s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t];
      const point = [0, 1].map((i) => k0 * a[i] + k1 * b[i] + k2 * c[i] + k3 * d[i]);
      if (step > 0) {
        const last = points.at(-1);
        length += Math.hypot(point[0] - last[0], point[1] - last[1]);
      }
      points.push(point);
      lengths.push(length);
    }
  }
  const [a, b, c, d] = curves[0].map((point) => point.map((n) => Math.round(n * 10) / 10).join(" "));
  return { points, lengths, length, drawn: `M${a} C${b} ${c} ${d}` };
}

const flat = (from, to, bend = 0.5) => {
  const x = from[0] + (to[0] - from[0]) * bend;
  return [from, [x, from[1]], [x, to[1]], to];
};
const steep = (from, to) => {
  const y = (from[1] + to[1]) / 2;
  return [from, [from[0], y], [to[0], y], to];
};
const turned = ([a, b, c, d]) => [d, c, b, a];

const edge = {
  left: (box, share = 0.5) => [box.x, box.y + box.h * share],
  right: (box, share = 0.5) => [box.x + box.w, box.y + box.h * share],
  top: (box, share = 0.5) => [box.x + box.w * share, box.y],
  bottom: (box, share = 0.5) => [box.x + box.w * share, box.y + box.h],
};

function wide(width, senders, receivers) {
  const roomy = Math.max(senders.length, receivers.length) <= ROOMY;
  const [nodeHeight, gap] = roomy ? [58, 20] : [32, 10];
  const stub = Math.max(14, Math.min(34, width * 0.03));
  const nodeWidth = Math.round(Math.max(132, Math.min(190, width * 0.185)));
  const exchangeWidth = Math.round(Math.max(84, Math.min(120, width * 0.11)));
  const queueWidth = Math.round(Math.max(184, Math.min(230, width * 0.22)));
  const column = (count) => count * nodeHeight + Math.max(0, count - 1) * gap;
  const tallest = Math.max(column(senders.length), column(receivers.length), 150);
  const [top, below] = [14, 104];
  const height = top + tallest + below;
  const middle = top + tallest / 2;
  const room = width - 2 * stub - 2 * nodeWidth - exchangeWidth - queueWidth;
  const boxes = {};
  const place = (names, x) => {
    names.forEach((name, index) => {
      const y = middle - column(names.length) / 2 + index * (nodeHeight + gap);
      boxes[name] = { x, y, w: nodeWidth, h: nodeHeight };
    });
  };
  place(senders, stub);
  place(receivers, width - stub - nodeWidth);
  const exchangeX = stub + nodeWidth + room * 0.36;
  const queueX = exchangeX + exchangeWidth + room * 0.2;
  boxes.exchange = { x: exchangeX, y: middle - 24, w: exchangeWidth, h: 48 };
  boxes.queue = { x: queueX, y: middle - 40, w: queueWidth, h: 80 };
  boxes.dead = { x: queueX + queueWidth / 2 - 80, y: height - 52, w: 160, h: 40 };
  const lines = {};
  const { exchange, queue, dead } = boxes;
  const route = flat(edge.right(exchange), edge.left(queue));
  for (const name of senders) {
    const box = boxes[name];
    const out = flat(edge.right(box), edge.left(exchange));
    lines[`in:${name}`] = curve(flat([box.x - stub, box.y + box.h / 2], edge.left(box)));
    lines[`publish:${name}`] = curve(out, route);
    lines[`bounce:${name}`] = curve(out, turned(out));
  }
  for (const name of receivers) {
    const box = boxes[name];
    lines[`deliver:${name}`] = curve(flat(edge.right(queue, 0.42), edge.left(box, 0.36)));
    lines[`back:${name}`] = curve(flat(edge.left(box, 0.72), edge.right(queue, 0.68), 0.42));
    lines[`out:${name}`] = curve(flat(edge.right(box), [box.x + box.w + stub, box.y + box.h / 2]));
  }
  lines.route = curve(route);
  lines.dead = curve(steep(edge.bottom(queue), edge.top(dead)));
  const home = edge.bottom(exchange);
  const from = edge.left(dead);
  lines.redrive = curve([from, [home[0], from[1]], [home[0], from[1]], home]);
  return { width, height, narrow: false, roomy, boxes, lines };
}

function tall(width, senders, receivers) {
  const roomy = Math.max(senders.length, receivers.length) <= ROOMY;
  const nodeHeight = roomy ? 58 : 32;
  const gap = 10;
  const stub = 14;
  const inRow = width < 260 ? 1 : 2;
  // A frame is drawn half outside of its box.
  const side = 2;
  const nodeWidth = (width - 2 * side - gap * (inRow - 1)) / inRow;
  const rows = (count) => Math.ceil(count / inRow);
  const block = (count) => rows(count) * nodeHeight + Math.max(0, rows(count) - 1) * (gap + 14);
  const boxes = {};
  const place = (names, y) => {
    names.forEach((name, index) => {
      const row = Math.floor(index / inRow);
      const alone = index === names.length - 1 && index % inRow === 0 && inRow === 2;
      const x = alone ? (width - nodeWidth) / 2 : side + (index % inRow) * (nodeWidth + gap);
      boxes[name] = { x, y: y + row * (nodeHeight + gap + 14), w: nodeWidth, h: nodeHeight };
    });
  };
  place(senders, stub);
  const exchangeY = stub + block(senders.length) + 54;
  boxes.exchange = { x: width * 0.3 - 60, y: exchangeY, w: 120, h: 40 };
  const queueY = exchangeY + 40 + 34;
  const deadWidth = Math.max(104, Math.round(width * 0.29));
  const queueWidth = Math.round(width - deadWidth - 2 * side - Math.max(22, width * 0.09));
  boxes.queue = { x: side, y: queueY, w: queueWidth, h: 80 };
  boxes.dead = { x: width - side - deadWidth, y: queueY + 16, w: deadWidth, h: 48 };
  const receiversY = queueY + 80 + 64;
  place(receivers, receiversY);
  const height = receiversY + block(receivers.length) + stub + 2;
  const lines = {};
  const { exchange, queue, dead } = boxes;
  const route = steep(edge.bottom(exchange), edge.top(queue));
  for (const name of senders) {
    const box = boxes[name];
    const out = steep(edge.bottom(box), edge.top(exchange));
    const [x, y] = edge.top(box);
    lines[`in:${name}`] = curve(steep([x, y - stub], [x, y]));
    lines[`publish:${name}`] = curve(out, route);
    lines[`bounce:${name}`] = curve(out, turned(out));
  }
  for (const name of receivers) {
    const box = boxes[name];
    const [x, y] = edge.bottom(box);
    lines[`deliver:${name}`] = curve(steep(edge.bottom(queue, 0.45), edge.top(box, 0.4)));
    lines[`back:${name}`] = curve(steep(edge.top(box, 0.7), edge.bottom(queue, 0.6)));
    lines[`out:${name}`] = curve(steep([x, y], [x, y + stub]));
  }
  lines.route = curve(route);
  lines.dead = curve(flat(edge.right(queue), edge.left(dead)));
  const home = edge.right(exchange);
  const from = edge.top(dead);
  lines.redrive = curve([from, [from[0], home[1]], [from[0], home[1]], home]);
  return { width, height, narrow: true, roomy, boxes, lines };
}
