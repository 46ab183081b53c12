// The connection: events as the console sends them, and whether the page is live.
//
// EventSource comes back by itself and says what it heard last; the console then sends some seconds again, so events may
// come twice: who takes them in knows them by what they are (model.js: node, boot and number; series.js: the second).
// A page that was not seen begins anew, and says nothing of what it heard.
// After any break the history is fetched: what happened meanwhile is never guessed.

const KINDS = ["state", "frame", "second"];
/** The console sends a state each second: this long without a word means that there is no connection. */
export const SILENCE = 5000;

export class Live {
  /**
   * `source()` opens a connection, `tell(kind, what)` hears each event, `status(live, why)` each change, and
   * `resumed()` that something may have been missed.
   */
  constructor({ source, tell, status, resumed = () => {}, now = Date.now }) {
    Object.assign(this, { source, tell, status, resumed, now });
    this.opened = 0;
    this.live = null;
    this.heard = 0;
    this.pause = 1000;
    this.again = null;
    this.stream = null;
  }

  start() {
    if (this.stream === null) this.open();
  }

  /** Until it is started again. A browser has six connections to a site for all its pages: nobody needs one unseen. */
  stop() {
    this.stream?.close();
    this.stream = null;
    this.again = null;
    // What happens until it is seen is missed, also before it is seen for the first time.
    this.opened = Math.max(this.opened, 1);
  }

  open() {
    const stream = this.source();
    this.stream = stream;
    this.heard = this.now();
    for (const kind of KINDS) {
      stream.addEventListener(kind, (event) => this.hear(kind, event));
    }
    stream.addEventListener("open", () => {
      this.opened += 1;
      this.pause = 1000;
      if (this.opened > 1) this.resumed();
    });
    stream.addEventListener("error", () => {
      this.say(false, "the connection to the console is lost");
      // Refused, not only broken off: EventSource does not try again by itself.
      if (stream.readyState === 2) this.later();
    });
  }

  hear(kind, event) {
    this.heard = this.now();
    let what;
    try {
      what = JSON.parse(event.data);
    } catch {
      return;
    }
    if (kind === "state") this.say(what.live !== false, what.why_not ?? null);
    this.tell(kind, what);
  }

  /** To be called now and then: a connection can be dead without anybody saying so. */
  check() {
    const silent = this.now() - this.heard;
    if (silent < SILENCE) return;
    this.say(false, `no word from the console for ${Math.round(silent / 1000)} s`);
    if (silent > 3 * SILENCE && this.again === null) {
      this.stream.close();
      this.later();
    }
  }

  later() {
    if (this.again !== null) return;
    this.again = this.now() + this.pause;
    this.pause = Math.min(this.pause * 2, 15000);
  }

  /** Opens anew when it is time. */
  tick() {
    if (this.stream === null) return;
    if (this.again !== null) {
      if (this.now() < this.again) return;
      this.again = null;
      this.open();
      return;
    }
    this.check();
  }

  say(live, why) {
    const word = live ? "live" : why;
    if (this.live === word) return;
    this.live = word;
    this.status(live, why);
  }
}
