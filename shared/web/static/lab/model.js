// What is known, and what moves: frames and states in; nodes, rates and trips of dots out. Draws nothing, asks nobody,
// and takes the time as an argument.
//
// A dot is one message that really went that way. Where more move than one can see, or nodes sent only a sample, dots
// are rationed, the lines carry the rates, and the caption says so.

/** So many dots a second can be followed; above it lines become streams. */
export const READABLE = 150;
/** Back to single dots only well below it, so that the picture does not flicker. */
const CALM = 110;
/** Dots a second in streams, for each kind of event. */
const RATION = 14;
/** Rates are of so many milliseconds. */
export const WINDOW = 3000;
/** A message is shown at most this much later than it moved. */
export const LATEST = 900;
/** Messages whose colour is remembered. */
const REMEMBERED = 4000;
/** At most so many dots for the messages that a dead node had. */
const GOING_BACK = 24;

/** For each kind of event: the line (of the node, or one for all), its time, and how the dot looks. */
const WAYS = {
  accepted: { line: "in", own: true, ms: 240, look: "message" },
  published: { line: "publish", own: true, ms: 460, look: "message" },
  returned: { line: "bounce", own: true, ms: 640, look: "bad" },
  refused: { line: "bounce", own: true, ms: 640, look: "bad" },
  delivered: { line: "deliver", own: true, ms: 420, look: "message" },
  failed: { line: "back", own: true, ms: 520, look: "wait" },
  duplicate: { line: "out", own: true, ms: 260, look: "hollow" },
  processed: { line: "out", own: true, ms: 260, look: "ok" },
  dead: { line: "dead", own: false, ms: 420, look: "bad" },
  redriven: { line: "redrive", own: false, ms: 700, look: "wait" },
};
/** What one follows with the eyes: the ends of the road are short. */
const LONG = ["published", "returned", "refused", "delivered", "failed", "dead", "redriven"];

/** Counts of the last seconds. */
class Recent {
  constructor() {
    this.parts = [];
    this.first = null;
  }

  add(at, counts) {
    this.first ??= at;
    this.parts.push([at, counts]);
    this.forget(at);
  }

  forget(now) {
    while (this.parts.length > 0 && this.parts[0][0] <= now - WINDOW) this.parts.shift();
  }

  perSecond(kind, now) {
    this.forget(now);
    let sum = 0;
    for (const [, counts] of this.parts) sum += counts[kind] ?? 0;
    return (sum * 1000) / WINDOW;
  }
}

export class Model {
  constructor() {
    this.nodes = new Map();
    this.last = null;
    this.recent = new Recent();
    /** When it was last seen that only a part of what happened was told. */
    this.leftOut = -Infinity;
    this.streaming = false;
    this.judged = -Infinity;
    this.messages = new Map();
    this.rations = new Map();
    this.trips = [];
    this.news = [];
  }

  /** What the console says of everything, once a second. Nodes that it does not name are gone. */
  state(state, now) {
    this.last = state;
    const named = new Set();
    for (const told of state.nodes ?? []) {
      named.add(told.name);
      const known = this.nodes.get(told.name);
      const node = known ?? this.join(told.name, told.service);
      const before = node.told?.state;
      node.told = told;
      node.service = told.service;
      if (told.state === "dead") {
        if (known && before !== "dead") this.died(node, now);
      } else {
        // As of when it lived: the last receiver that dies takes this along.
        node.goesBack = !(state.guarantees_off ?? []).includes("ack-after-commit");
        if (before === "dead") this.news.push(`${told.name} is back`);
        node.had = 0;
      }
    }
    for (const name of this.nodes.keys()) {
      if (!named.has(name)) this.nodes.delete(name);
    }
  }

  join(name, service) {
    const node = { name, service, told: null, boot: null, seq: -1, hand: 0, gauges: {}, had: 0, goesBack: true, recent: new Recent() };
    this.nodes.set(name, node);
    return node;
  }

  /**
   * What a dead receiver had in hand goes back to the queue: the broker hands it to others. What it had by its last frame,
   * so some of it may have been acked since. Of one that acks on arrival the broker has nothing to give back.
   */
  died(node, now) {
    node.had = node.service === "receiver" ? node.hand : 0;
    const had = node.had > 0 ? `, ${inHand(node)}` : "";
    this.news.push(`${node.name} died${had}`);
    const back = node.goesBack ? Math.min(node.had, GOING_BACK) : 0;
    for (let index = 0; index < back; index += 1) {
      this.trips.push({ line: `back:${node.name}`, start: now + index * 45, ms: 800, look: "bad", colour: null });
    }
    node.hand = 0;
  }

  /** What a node says ten times a second; several at once, too. Told again, it changes nothing. */
  frame(told, now) {
    if (Array.isArray(told)) {
      for (const one of told) this.frame(one, now);
      return;
    }
    const node = this.nodes.get(told.node) ?? this.join(told.node, told.service);
    if (told.boot !== node.boot) {
      node.boot = told.boot;
      node.seq = -1;
    }
    if (Number.isFinite(told.seq)) {
      if (told.seq <= node.seq) return;
      // A gap: what was told meanwhile is not known. Frames that the console merged are one, and leave a gap too; they come
      // only where there are more than can be followed.
      if (node.seq >= 0 && told.seq > node.seq + 1) this.leftOut = now;
      node.seq = told.seq;
    }
    const counts = told.counts ?? {};
    node.recent.add(now, counts);
    this.recent.add(now, counts);
    node.gauges = told.gauges ?? {};
    if (Number.isFinite(node.gauges.in_hand)) node.hand = node.gauges.in_hand;
    if (told.left_out > 0) this.leftOut = now;
    this.judge(now);
    for (const event of told.sample ?? []) this.move(node, event, told.since ?? told.at, now);
  }

  /** Whether one can follow all that moves; asked a few times a second, since it looks at every count. */
  judge(now) {
    if (now - this.judged < 200) return;
    this.judged = now;
    const moving = LONG.reduce((sum, kind) => sum + this.recent.perSecond(kind, now), 0);
    if (moving > READABLE) this.streaming = true;
    else if (moving < CALM) this.streaming = false;
  }

  /** A message goes on where it has arrived, at most a moment later than it did. */
  move(node, event, since, now) {
    const way = WAYS[event.kind];
    if (!way) return;
    const known = this.messages.get(event.id);
    let colour = known?.colour ?? null;
    if (event.kind === "accepted" || (event.kind === "published" && colour === null)) {
      colour = node.told?.colour ?? null;
    }
    if (!this.allowed(node, event.kind, now)) {
      this.remember(event.id, colour, known?.until ?? 0);
      return;
    }
    // Where in its tenth of a second it was: otherwise dots would come in bunches.
    const apart = Math.min(Math.max((event.at ?? since) - since, 0), 400);
    const start = Math.min(Math.max(now + apart, known?.until ?? 0), now + LATEST - way.ms);
    this.remember(event.id, colour, start + way.ms);
    const line = way.own ? `${way.line}:${node.name}` : way.line;
    this.trips.push({ line, start, ms: way.ms, look: way.look, colour });
  }

  remember(id, colour, until) {
    if (!id) return;
    this.messages.delete(id);
    this.messages.set(id, { colour, until });
    if (this.messages.size > REMEMBERED) this.messages.delete(this.messages.keys().next().value);
  }

  /** In streams each kind has its ration, shared by the nodes, so that what is rare is seen among what is not. */
  allowed(node, kind, now) {
    if (!this.streaming) return true;
    const key = `${node.name} ${kind}`;
    const peers = [...this.nodes.values()].filter((other) => other.service === node.service).length;
    const perSecond = RATION / Math.max(1, peers);
    const ration = this.rations.get(key) ?? { at: now, left: 1 };
    ration.left = Math.min(1, ration.left + ((now - ration.at) * perSecond) / 1000);
    ration.at = now;
    this.rations.set(key, ration);
    if (ration.left < 1) return false;
    ration.left -= 1;
    return true;
  }

  /** The dots that set out since this was last asked. */
  take() {
    const trips = this.trips;
    this.trips = [];
    return trips;
  }

  /** What is worth saying aloud since this was last asked. */
  takeNews() {
    const news = this.news;
    this.news = [];
    return news;
  }

  /** Everything that is drawn but for the dots. */
  view(now) {
    this.judge(now);
    const nodes = [...this.nodes.values()]
      .map((node) => this.shown(node, now))
      .toSorted((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    const lines = {};
    for (const node of nodes) {
      const per = (kind) => this.nodes.get(node.name).recent.perSecond(kind, now);
      if (node.service === "sender") {
        lines[`publish:${node.name}`] = per("published") + per("returned") + per("refused");
      } else {
        lines[`deliver:${node.name}`] = per("delivered");
        lines[`back:${node.name}`] = per("failed");
      }
    }
    lines.route = this.recent.perSecond("published", now);
    lines.dead = this.recent.perSecond("dead", now);
    lines.redrive = this.recent.perSecond("redriven", now);
    const sampled = this.streaming || now - this.leftOut < WINDOW;
    return {
      senders: nodes.filter((node) => node.service === "sender"),
      receivers: nodes.filter((node) => node.service === "receiver"),
      queue: this.last?.queue ?? null,
      exchange: this.last?.exchange ?? null,
      // Those that nobody has decided about, of whatever run, and those that wait to be stored.
      dead: (this.last?.queue?.parked ?? 0) + (this.last?.queue?.dead ?? 0),
      lines,
      streaming: this.streaming,
      sampled,
      old: this.last?.nodes_why_old ?? null,
      accepted: this.recent.perSecond("accepted", now),
      processed: this.recent.perSecond("processed", now),
      faults: this.last?.faults ?? [],
      struck: strikes(this.last?.faults ?? [], nodes),
    };
  }

  shown(node, now) {
    const told = node.told ?? {};
    const heard = node.recent.parts.length > 0 && now - node.recent.parts.at(-1)[0] < WINDOW;
    const kind = node.service === "sender" ? "accepted" : "processed";
    return {
      name: node.name,
      service: node.service,
      colour: told.colour ?? null,
      state: told.state ?? "up",
      blocked: told.blocked === true || (heard && node.gauges.blocked === true),
      // Only what a node says itself: one that is not heard is not called cut off.
      cutOff: heard && node.gauges.connected === false,
      rate: heard ? node.recent.perSecond(kind, now) : (told.rate ?? 0),
      inHand: (heard ? node.gauges.in_hand : undefined) ?? told.in_hand ?? 0,
      prefetch: (heard ? node.gauges.prefetch : undefined) ?? told.prefetch ?? 0,
      waiting: (heard ? node.gauges.waiting : undefined) ?? told.waiting ?? 0,
      held: (heard ? node.gauges.held : undefined) ?? told.held ?? 0,
      had: node.had,
      goesBack: node.goesBack,
    };
  }
}

/** What is known of what a dead receiver had in hand. */
export function inHand({ had, goesBack }) {
  return goesBack ? `up to ${had} in hand went back` : `had up to ${had} in hand, acked on arrival: nothing brings them back`;
}

/**
 * Where faults strike: links of nodes that are hurt, whether the queue, the exchange or the way between them is, and
 * what has no place in the picture.
 */
export function strikes(faults, nodes) {
  const struck = { links: new Map(), nodes: new Map(), queue: null, exchange: null, route: null, beside: [] };
  for (const fault of faults) {
    const kind = fault.kind ?? "";
    const words = (fault.target ?? "").split(/[^\w.-]+/);
    const hit = nodes.filter((node) => words.includes(node.name)).map((node) => node.name);
    const links = kind.match(/^(\w+)-(?:link|close)/);
    if (links?.[1] === "rabbitmq") for (const name of hit) struck.links.set(name, kind);
    else if (kind === "queue-unbind") struck.route = kind;
    else if (kind === "rabbitmq-memory-alarm") struck.exchange = kind;
    else if (kind.startsWith("rabbitmq") || kind.startsWith("queue")) struck.queue = kind;
    else if (hit.length > 0) for (const name of hit) struck.nodes.set(name, kind);
    else struck.beside.push(`${kind} ${fault.target ?? ""}`.trim());
  }
  return struck;
}

/** What the picture shows, in one sentence, and what of it is old. */
export function caption(view, live, why, say) {
  const text = sentence(view, live, why, say);
  return view.old ? `${text} · ${view.old}` : text;
}

function sentence(view, live, why, say) {
  if (!live) return `not live: ${why ?? "nothing is heard"}`;
  if (view.senders.length + view.receivers.length === 0) return "no node is there";
  const busy = Object.values(view.lines).some((perSecond) => perSecond > 0) || view.accepted > 0;
  if (!busy) return "quiet: nothing moves";
  const rates = `${say(view.accepted)} accepted, ${say(view.processed)} processed`;
  if (view.streaming) return `${rates} · lines are as thick as their rates, dots are a sample`;
  if (view.sampled) return `${rates} · dots are a sample`;
  return `${rates} · every message is shown, a dot is one`;
}
