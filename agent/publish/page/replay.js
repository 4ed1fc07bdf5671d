// Recordings that are shown instead of what the agent sends.

import { replay } from "./files.js";
import { Model } from "./model.js";
import { Pump } from "./pump.js";
import { safe } from "./text.js";

/** @typedef {import("./line.js").Line} Line */
/** @typedef {ReadableStream<Uint8Array<ArrayBuffer>>} Stream */
/**
 * @typedef {object} Options
 * @property {Line} line
 * @property {() => Model} shown what the page shows now
 * @property {(model: Model) => void} onShow a recording takes the place of what is shown
 * @property {() => void} onChange there is something new to show
 */

export class Replay {
  /** @param {Options} options */
  constructor(options) {
    this._options = options;
  }

  /**
   * Show a file, unless no line of it is a record: what is shown then goes on.
   * @param {Stream} stream
   * @param {string} name
   */
  async file(stream, name) {
    const { line, onChange } = this._options;
    const model = new Model(true);
    const why = await this._read(stream, name, model, false);
    if (why) line.note(`${safe(name)} is no recording: ${why}`, Date.now());
    onChange();
  }

  /** Show the recording that the agent serves. @param {string} token */
  async ofAgent(token) {
    const { line, onChange } = this._options;
    const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
    try {
      const answer = await fetch("/recording", { headers, cache: "no-store", credentials: "omit" });
      if (answer.ok && answer.body !== null) {
        const model = new Model(true);
        this._options.onShow(model);
        await this._read(answer.body, "the agent's recording", model, true);
      } else line.refused(answer.status, (await answer.text()).trim(), Date.now(), 0);
    } catch {
      line.refused(404, "the agent cannot be reached", Date.now(), 0);
    }
    onChange();
  }

  /**
   * Read a recording to its end. Return why it is not shown; empty if it is, or was.
   * @param {Stream} stream
   * @param {string} name
   * @param {Model} model
   * @param {boolean} isShown
   */
  async _read(stream, name, model, isShown) {
    const { line, shown, onShow, onChange } = this._options;
    const title = safe(name);
    if (isShown) line.replay(title);
    const pump = new Pump((records, bad) => {
      model.bad += bad;
      if (records.length === 0) return;
      if (!isShown) {
        isShown = true;
        onShow(model);
        line.replay(title);
      } else if (shown() !== model) return; // Another recording was shown since.
      model.take(records, line, Date.now());
      onChange();
    });
    let isRead = true;
    try {
      await replay(stream, name, pump);
    } catch {
      isRead = false;
    }
    if (!isShown) return isRead ? "it holds no record" : "it cannot be read";
    if (shown() === model) {
      const problem = isRead ? [] : ["it cannot be read to its end"];
      line.replay([title, ...problem, ...model.end()].join("; "));
    }
    return "";
  }
}
