// The state of the connection to the agent. Pure: times and random numbers are arguments.

import { clock, count } from "./text.js";

/** @typedef {import("./records.js").HelloRecord} HelloRecord */
/** @typedef {import("./records.js").LostRecord} LostRecord */
/** @typedef {"connecting" | "live" | "paused" | "cut off" | "stale" | "token" | "refused" | "replay"} Kind */

/**
 * @typedef {object} LineState
 * @property {Kind} kind
 * @property {string} text one line, such as `live` or `cut off since 03:12:04, again in 4 s`
 * @property {number | null} retryAt when the next attempt is made, in ms
 * @property {number} behind changes that are not shown, because the page is paused
 * @property {boolean} paused
 * @property {string} notice what the newest connection began with or lost: `resumed, nothing
 *   missed`, `began anew`, `lost 1200–1260`; empty if nothing is to be said
 */

// The first attempt is made after half a second at most, later ones after 30 seconds at most.
const MIN_BACKOFF = 500;
const MAX_BACKOFF = 30_000;
// A connection that lasted so long was a good one: the next attempt is made soon.
const GOOD_CONNECTION = 10_000;
// The agent sends a heartbeat after 15 seconds without another record; two may be late.
export const STALE = 35_000;
// How long a notice is shown. What was lost is marked in the event log too.
const NOTICE = 15_000;
// Statuses after which another attempt may have another result.
const isTemporary = (/** @type {number} */ status) =>
  status >= 500 && status !== 501 && status !== 505;

export class Line {
  /** @param {number} now */
  constructor(now) {
    /** @type {"connecting" | "open" | "cut off" | "token" | "refused" | "replay"} */
    this._phase = "connecting";
    this._reason = "";
    this._cutOffAt = now;
    this._openedAt = now;
    this._heardAt = now;
    this._steadySince = now;
    this._attempts = 0;
    /** @type {number | null} */
    this._retryAt = null;
    this._paused = false;
    this._behind = 0;
    this._notice = "";
    this._noticeUntil = 0;
  }

  /** An attempt begins. After a cut the state remains `cut off` until records come. */
  connecting() {
    this._retryAt = null;
    if (this._phase !== "cut off") this._phase = "connecting";
  }

  /**
   * A stream begins with this record. One in a recording begins nothing.
   * @param {HelloRecord} hello
   * @param {{epoch: string | null, seq: number} | undefined} before what was known of the host
   * @param {number} now
   */
  hello(hello, before, now) {
    if (this._phase === "replay") return;
    if (this._phase !== "open") this._openedAt = this._steadySince = now;
    this._phase = "open";
    this._hear(now);
    if (before === undefined || before.epoch === null) return;
    if (hello.resumed) this._say("resumed, nothing missed", now);
    else if (before.epoch !== hello.epoch) this._say("began anew", now);
    else if (hello.seq > before.seq) this._say(lostText(before.seq + 1, hello.seq), now);
    else this._say("resumed, nothing missed", now);
  }

  /** A record says that changes are missing. @param {LostRecord} record @param {number} now */
  lost(record, now) {
    this._say(lostText(record.from, record.to), now);
  }

  /** Records came, with so many changes among them. @param {number} changes @param {number} now */
  received(changes, now) {
    this._hear(now);
    if (this._paused) this._behind += changes;
  }

  /**
   * The connection ended, or none came about.
   * @param {string} reason for people; may be empty
   * @param {number} now
   * @param {number} jitter a random number in [0, 1)
   */
  closed(reason, now, jitter) {
    if (this._phase !== "cut off") this._cutOffAt = now;
    if (this._phase === "open" && now - this._openedAt >= GOOD_CONNECTION) this._attempts = 0;
    const backoff = Math.min(MAX_BACKOFF, MIN_BACKOFF * 2 ** Math.min(this._attempts, 16));
    this._attempts += 1;
    this._phase = "cut off";
    this._reason = reason;
    this._retryAt = now + backoff * (0.5 + jitter / 2);
  }

  /**
   * The agent answered with this HTTP status, and a sentence.
   * @param {number} status
   * @param {string} sentence
   * @param {number} now
   * @param {number} jitter
   */
  refused(status, sentence, now, jitter) {
    if (isTemporary(status)) {
      this.closed(sentence, now, jitter);
      return;
    }
    this._phase = status === 401 ? "token" : "refused";
    this._reason = sentence;
    this._retryAt = null;
  }

  /** Say something for some seconds. @param {string} notice @param {number} now */
  note(notice, now) {
    this._say(notice, now);
  }

  /** Records are read from a file. @param {string} name */
  replay(name) {
    this._phase = "replay";
    this._reason = name;
    this._retryAt = null;
  }

  pause() {
    this._paused = true;
  }

  resume() {
    this._paused = false;
    this._behind = 0;
  }

  /** Everything that came is shown, as when another view is chosen while the page is paused. */
  caughtUp() {
    this._behind = 0;
  }

  /** Return since when records have come without a break; null if they do not. @param {number} now */
  steadySince(now) {
    return this._phase === "open" && now - this._heardAt < STALE ? this._steadySince : null;
  }

  get paused() {
    return this._paused;
  }

  /** Return the state. @param {number} now @returns {LineState} */
  state(now) {
    const [kind, text] = this._describe(now);
    return {
      kind,
      text: this._paused && kind !== "paused" ? `${text}; ${this._pausedText()}` : text,
      retryAt: this._retryAt,
      behind: this._behind,
      paused: this._paused,
      notice: now < this._noticeUntil ? this._notice : "",
    };
  }

  /** @param {number} now @returns {[Kind, string]} */
  _describe(now) {
    switch (this._phase) {
      case "connecting":
        return ["connecting", "connecting"];
      case "token":
        return ["token", "a token is required"];
      case "refused":
        return ["refused", this._reason ? `refused: ${this._reason}` : "refused"];
      case "replay":
        return ["replay", `replay of ${this._reason}`];
      case "cut off": {
        const why = this._reason ? ` (${this._reason})` : "";
        const since = `cut off since ${clock(this._cutOffAt)}${why}`;
        if (this._retryAt === null) return ["cut off", `${since}, connecting`];
        const seconds = Math.max(0, Math.ceil((this._retryAt - now) / 1000));
        return ["cut off", `${since}, again in ${seconds} s`];
      }
      default:
        break;
    }
    if (now - this._heardAt >= STALE) {
      const seconds = Math.floor((now - this._heardAt) / 1000);
      return ["stale", `stale: no record for ${seconds} s`];
    }
    return this._paused ? ["paused", this._pausedText()] : ["live", "live"];
  }

  /** @param {number} now */
  _hear(now) {
    if (now - this._heardAt >= STALE) this._steadySince = now;
    this._heardAt = now;
  }

  _pausedText() {
    return `paused (${count(this._behind)} behind)`;
  }

  /** @param {string} notice @param {number} now */
  _say(notice, now) {
    this._notice = notice;
    this._noticeUntil = now + NOTICE;
  }
}

/** @param {number} from @param {number | null} to */
function lostText(from, to) {
  return to === null ? `lost ${from} on` : `lost ${from}–${to}`;
}
