// Which hosts are silent: nothing of them comes while records of others do, as on the page of a
// relay that has lost one of its agents. Pure: times are arguments.

import { STALE } from "./line.js";
import { clock, counted, safe } from "./text.js";

// Of a whole site that is cut off, the line of state has room for a few names.
const MAX_NAMES = 3;

/** When something of each host came last. */
export class Silence {
  /** @type {Map<string, number>} */
  #heard = new Map();

  /** A record of a host came. @param {string} host @param {number} now in ms */
  hear(host, now) {
    this.#heard.set(host, now);
  }

  /**
   * Return the silent hosts, and when something of each came last, in ms.
   * @param {number} now
   * @param {number | null} since when the connection has been live without a break; null if it is
   *   not: it is then the connection that is silent
   * @returns {ReadonlyMap<string, number>}
   */
  silent(now, since) {
    if (since === null || now - since < STALE) return new Map();
    return new Map([...this.#heard].filter(([, heard]) => now - heard >= STALE));
  }
}

/**
 * Return what is said of silent hosts: `web2: nothing since 12:03:04`; empty if there are none.
 * @param {ReadonlyMap<string, number>} silent
 */
export function silenceText(silent) {
  const sentences = [...silent].slice(0, MAX_NAMES)
    .map(([host, heard]) => `${safe(host)}: nothing since ${clock(heard)}`);
  const more = silent.size - sentences.length;
  if (more > 0) sentences.push(`${counted(more, "more host")} silent`);
  return sentences.join("; ");
}
