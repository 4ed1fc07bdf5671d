// Connections between hosts of which one end is known only. Pure: the time is an argument.

/** @typedef {import("./state.js").Row} Row */

// An end that another host has not reported after so long is shown without it: hosts are polled at
// different moments, by default once a second.
export const REPORT_MS = 3000;

/**
 * Connections to other hosts that these hosts do not report. Hosts do not report at the same time:
 * a connection is first seen, and last seen, from one end only.
 */
export class Unmatched {
  /** When a row was first without its other end. @type {WeakMap<Row, number>} */
  #since = new WeakMap();

  /** Return whether a row has been without its other end for long. @param {Row} row
   * @param {number} now in ms */
  isOld(row, now) {
    const since = this.#since.get(row);
    if (since === undefined) this.#since.set(row, now);
    return since !== undefined && now - since >= REPORT_MS;
  }

  /** Note that the other end of a row is there. @param {Row} row */
  match(row) {
    this.#since.delete(row);
  }
}
