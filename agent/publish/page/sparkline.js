// A small line of the newest values, with gaps where nothing is known.

import { count } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 60;
const HEIGHT = 16;
// So that the line is not cut at the edges.
const MARGIN = 1;

/**
 * Return the path of a line through values. It begins anew after a gap, and a single value between
 * gaps is a dot.
 * @param {readonly (number | null)[]} series
 * @returns {string}
 */
export function pathOf(series) {
  const greatest = Math.max(1, ...series.map((value) => value ?? 0));
  const step = (WIDTH - 2 * MARGIN) / Math.max(1, series.length - 1);
  let path = "";
  for (const [index, value] of series.entries()) {
    if (value === null) continue;
    const x = MARGIN + index * step;
    const y = HEIGHT - MARGIN - (value / greatest) * (HEIGHT - 2 * MARGIN);
    const begins = (series[index - 1] ?? null) === null;
    const isAlone = begins && (series[index + 1] ?? null) === null;
    path += `${begins ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}${isAlone ? "h0" : ""}`;
  }
  return path;
}

/** A sparkline, which is a picture with a name: its label and newest value. */
export class Sparkline {
  element = document.createElementNS(SVG, "svg");
  #path = document.createElementNS(SVG, "path");
  #label;
  #drawn = "";
  #name = "";

  /** @param {string} label */
  constructor(label) {
    this.#label = label;
    this.element.setAttribute("class", "sparkline");
    this.element.setAttribute("role", "img");
    this.element.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.append(this.#path);
    this.update([]);
  }

  /**
   * Draw values, the newest at the end; null is a gap.
   * @param {readonly (number | null)[]} series
   */
  update(series) {
    const newest = series.at(-1) ?? null;
    const name = `${this.#label}: ${newest === null ? "unknown" : count(newest)}`;
    if (name !== this.#name) this.element.setAttribute("aria-label", name);
    this.#name = name;
    const drawn = pathOf(series);
    if (drawn !== this.#drawn) this.#path.setAttribute("d", drawn);
    this.#drawn = drawn;
  }
}
