// The connection to the agent: a WebSocket that is opened again after it was cut.

import { eventsPath } from "./query.js";

/** @typedef {import("./line.js").Line} Line */
/** @typedef {import("./pump.js").Pump} Pump */

const PROTOCOL = "sockagent.v1";
const TOKEN_PROTOCOL = "sockagent.token.";
// A silent connection is replaced: the network may have changed while the machine slept.
const SILENCE = 70_000;
// A sentence of the agent has less; a proxy may send a whole page.
const MAX_SENTENCE = 300;
const STATUS_UPGRADE = 426;
const NO_UPGRADE = "no WebSocket comes about; a proxy on the way may not pass it on";

/**
 * @typedef {object} Options
 * @property {Line} line
 * @property {Pump} pump
 * @property {() => [string, number][]} positions after which the stream can resume
 * @property {() => string} token empty if there is none
 * @property {(words: string, isNew: boolean) => void} onBegin a stream of what matches begins;
 *   `isNew`: what was known before is not of it
 * @property {(words: string, sentence: string, isRefused: boolean) => void} onInvalid a search leads
 *   to no stream, and the present one goes on; `isRefused`: the agent says that it is wrong
 * @property {() => void} onChange the state of the line has changed
 */

export class Connection {
  /** @param {Options} options */
  constructor(options) {
    this._options = options;
    /** @type {WebSocket | null} */
    this._socket = null;
    /** What the present stream was asked for; null if none has begun. @type {string | null} */
    this._words = null;
    this._attempt = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this._timer = undefined;
    this._heardAt = 0;
  }

  /**
   * Subscribe to what matches the words of a search. The present stream goes on until the new one
   * begins.
   * @param {string} words
   * @param {boolean} isForced even if there is a stream of these words
   */
  async open(words, isForced = false) {
    const { line, pump, onChange } = this._options;
    const attempt = (this._attempt += 1);
    clearTimeout(this._timer);
    if (this._socket !== null && words === this._words && !isForced) return;
    if (this._socket === null) line.connecting();
    onChange();
    await pump.drained(); // The positions are those after all records that came.
    if (attempt !== this._attempt) return;
    const path = eventsPath(words, words === this._words ? this._options.positions() : []);
    const socket = this._webSocket(path);
    if (socket === null) return;
    let hasOpened = false;
    socket.onopen = () => {
      if (attempt !== this._attempt) {
        socket.close();
        return;
      }
      hasOpened = true;
      this._begin(socket, words);
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this._socket) return;
      this._heardAt = Date.now();
      pump.push(data);
    };
    socket.onclose = ({ reason }) => {
      if (!hasOpened) void this._explain(attempt, words, path);
      else if (socket === this._socket) {
        this._socket = null;
        this._retry(reason, words);
      }
    };
  }

  /** End the stream and the attempts to open one. */
  stop() {
    this._attempt += 1;
    clearTimeout(this._timer);
    const socket = this._socket;
    this._socket = null;
    this._words = null;
    socket?.close();
  }

  /** Replace a connection on which nothing came for long. @param {number} now */
  check(now) {
    if (this._socket === null || this._words === null || now - this._heardAt < SILENCE) return;
    this._heardAt = now;
    void this.open(this._words, true);
  }

  /** @param {string} path @returns {WebSocket | null} */
  _webSocket(path) {
    const { line, token, onChange } = this._options;
    const secret = token();
    const protocols = secret ? [PROTOCOL, TOKEN_PROTOCOL + secret] : [PROTOCOL];
    const url = new URL(path, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.hash = "";
    try {
      return new WebSocket(url, protocols);
    } catch {
      // The name of a protocol has no blanks and the like.
      line.refused(401, "the token has characters that no token has", Date.now(), 0);
      onChange();
      return null;
    }
  }

  /** @param {WebSocket} socket @param {string} words */
  _begin(socket, words) {
    const before = this._socket;
    const isNew = words !== this._words;
    this._socket = socket;
    this._words = words;
    this._heardAt = Date.now();
    before?.close();
    if (isNew) this._options.pump.clear();
    this._options.onBegin(words, isNew);
    this._options.onChange();
  }

  /** @param {string} reason @param {string} words */
  _retry(reason, words) {
    const { line, onChange } = this._options;
    const now = Date.now();
    line.closed(reason, now, Math.random());
    const { retryAt } = line.state(now);
    if (retryAt !== null) this._timer = setTimeout(() => void this.open(words), retryAt - now);
    onChange();
  }

  /**
   * A browser does not tell why a WebSocket was refused; the answer to a plain request does.
   * @param {number} attempt
   * @param {string} words
   * @param {string} path
   */
  async _explain(attempt, words, path) {
    const secret = this._options.token();
    let status = 0;
    let sentence = "";
    try {
      const headers = secret ? { Authorization: `Bearer ${secret}` } : undefined;
      const answer = await fetch(path, { headers, cache: "no-store", credentials: "omit" });
      status = answer.status;
      sentence = (await answer.text()).trim().slice(0, MAX_SENTENCE);
    } catch {
      // The agent cannot be reached.
    }
    if (attempt !== this._attempt) return;
    if (status === 0) this._retryIfClosed("", words);
    else if (status === STATUS_UPGRADE) this._retryIfClosed(NO_UPGRADE, words);
    else if (status >= 500) this._retryIfClosed(sentence, words);
    else if (status === 400) this._invalid(words, sentence);
    else this._refuse(status, sentence);
  }

  /** @param {string} reason @param {string} words */
  _retryIfClosed(reason, words) {
    if (this._socket === null) this._retry(reason, words);
    else this._options.onInvalid(words, reason || "the agent cannot be reached", false);
  }

  /** @param {string} words @param {string} sentence */
  _invalid(words, sentence) {
    if (this._socket === null) this._refuse(400, sentence);
    this._options.onInvalid(words, sentence, true);
  }

  /** @param {number} status @param {string} sentence */
  _refuse(status, sentence) {
    const socket = this._socket;
    this._socket = null;
    socket?.close();
    this._options.line.refused(status, sentence, Date.now(), Math.random());
    this._options.onChange();
  }
}
