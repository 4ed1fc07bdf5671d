// Why the table has no rows, in a sentence. Pure.

import { count, safe } from "./text.js";

/** @typedef {import("./model.js").Model} Model */
/**
 * A sentence of which a part is a button. What it does: `clear` the filter, or show `all` sockets.
 * @typedef {{before: string, button: string, after: string, action: "clear" | "all" | null}} Sentence
 */

/**
 * Return why no row of a model is shown; null if that is not known yet.
 * @param {Model} model
 * @param {boolean} isPart whether only the sockets of the internet are listed
 * @returns {Sentence | null}
 */
export function emptyText(model, isPart) {
  const { words, state } = model;
  if (!model.isWhole()) return null;
  if (words !== "") {
    const all = model.allSockets();
    const number = all ? ` ${count(all)}` : "";
    return {
      before: `No socket matches ${safe(words)}. `, button: "Clear the filter",
      after: ` to see all${number}.`, action: "clear",
    };
  }
  if (isPart && state.rows.size) {
    return {
      before: "No TCP, UDP or raw socket is open. ", button: "Show unix and others",
      after: ` to see all ${count(state.rows.size)}.`, action: "all",
    };
  }
  return { before: "No socket is open.", button: "", after: "", action: null };
}
