// Takes texts of NDJSON and passes their records on in slices, so that the page stays responsive.

import { parseRecords } from "./records.js";

/** @typedef {import("./records.js").AnyRecord} AnyRecord */

// After as many milliseconds the browser may paint and take input. A frame has 16.
const SLICE = 8;

export class Pump {
  /**
   * @param {(records: AnyRecord[], bad: number) => void} onRecords
   */
  constructor(onRecords) {
    this._onRecords = onRecords;
    /** @type {string[]} */
    this._texts = [];
    this._next = 0;
    this._isScheduled = false;
    /** @type {(() => void)[]} */
    this._waiting = [];
    // Messages come at once; timers of a hidden page are held back.
    this._channel = new MessageChannel();
    this._channel.port1.onmessage = () => this._run();
  }

  /** Add text that ends with a whole line. @param {string} text */
  push(text) {
    this._texts.push(text);
    this._schedule();
  }

  /** Drop what has not been passed on. */
  clear() {
    this._texts = [];
    this._next = 0;
  }

  /** Wait until everything has been passed on. @returns {Promise<void>} */
  drained() {
    if (this._next >= this._texts.length) return Promise.resolve();
    return new Promise((resolve) => this._waiting.push(resolve));
  }

  _schedule() {
    if (this._isScheduled) return;
    this._isScheduled = true;
    this._channel.port2.postMessage(null);
  }

  _run() {
    this._isScheduled = false;
    const end = performance.now() + SLICE;
    while (this._next < this._texts.length && performance.now() < end) {
      const { records, bad } = parseRecords(this._texts[this._next]);
      this._texts[this._next] = "";
      this._next += 1;
      this._onRecords(records, bad);
    }
    if (this._next < this._texts.length) {
      this._schedule();
      return;
    }
    this.clear();
    for (const resolve of this._waiting.splice(0)) resolve();
  }
}
