// What is shown, as the address of the page: `/?port=443&view=events`. Pure.

import { encode, joinWords, splitWords } from "./query.js";

/**
 * @typedef {object} View
 * @property {string} words the text of the search
 * @property {ViewName} view
 * @property {string} sort the column; empty for the usual one
 * @property {boolean} descending
 * @property {string[]} columns empty for the usual ones
 * @property {boolean} all the table also shows unix and other sockets while there is no filter
 * @property {string} token only read, never written
 * @property {boolean} recording the agent has a recording to replay
 */
/** @typedef {"table" | "events" | "tree" | "map"} ViewName */

/** @type {ViewName[]} */
export const VIEWS = ["table", "events", "tree", "map"];
// Parameters that are no filters; others are words of the search.
const OWN = new Set(["view", "sort", "columns", "all", "recording", "target"]);

/**
 * Return the view of an address. Values that make no sense are as if absent.
 * @param {string} search with `?`
 * @param {string} hash with `#`
 * @returns {View}
 */
export function parseView(search, hash) {
  const parameters = new URLSearchParams(search);
  /** @type {string[]} */
  const words = [];
  for (const [name, value] of parameters) {
    if (name === "target") words.push(value);
    else if (!OWN.has(name)) words.push(value === "" ? name : `${name}=${value}`);
  }
  const sort = parameters.get("sort") ?? "";
  const view = VIEWS.find((name) => name === parameters.get("view")) ?? "table";
  return {
    words: joinWords(words.filter((word) => word !== "")),
    view,
    sort: sort.replace(/^-/, ""),
    descending: sort.startsWith("-"),
    columns: (parameters.get("columns") ?? "").split(",").filter((name) => name !== ""),
    all: parameters.get("all") === "1",
    token: new URLSearchParams(hash.replace(/^#/, "")).get("token") ?? "",
    recording: parameters.has("recording"),
  };
}

/**
 * Return the query string of a view, empty for the usual one. The token is never in it.
 * @param {View} view
 */
export function formatView(view) {
  const parameters = splitWords(view.words).map(wordParameter);
  if (view.view !== "table") parameters.push(`view=${view.view}`);
  if (view.sort) parameters.push(`sort=${view.descending ? "-" : ""}${encode(view.sort)}`);
  if (view.columns.length) parameters.push(`columns=${view.columns.map(encode).join(",")}`);
  if (view.all) parameters.push("all=1");
  if (view.recording) parameters.push("recording");
  return parameters.length ? `?${parameters.join("&")}` : "";
}

/** @param {string} word */
function wordParameter(word) {
  const [, name, value] = /^([A-Za-z_-]+!?)=(.+)$/s.exec(word) ?? [];
  if (name === undefined || value === undefined || OWN.has(name)) return `target=${encode(word)}`;
  return `${name}=${encode(value)}`;
}
