// The lines of the map as a table: for readers of screens, and to read them in full.

import { element, setText } from "./lines.js";
import { count, counted, safe } from "./text.js";

/** @typedef {import("./map.js").MapPicture} MapPicture */

const TITLES = ["from", "to", "connections", "CLOSE_WAIT"];

/** A list that is filled while it is open. */
export class MapList {
  element = element("details", "map-list");
  #title = element("summary");
  #body = element("tbody");
  /** @type {MapPicture | null} */
  #picture = null;

  /** @param {(words: string[]) => void} onFilter */
  constructor(onFilter) {
    const table = element("table");
    const head = element("tr");
    for (const title of TITLES) {
      const cell = element("th", "", title);
      cell.scope = "col";
      head.append(cell);
    }
    const heads = element("thead");
    heads.append(head);
    table.append(heads, this.#body);
    this.element.append(this.#title, table);
    // The map is wider than the screen of a telephone.
    this.element.open = matchMedia("(max-width: 700px)").matches;
    this.element.addEventListener("toggle", () => this.#fill());
    this.#body.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("button") : null;
      if (button?.dataset.words) onFilter(button.dataset.words.split(" "));
    });
  }

  /** Show the edges of a picture. @param {MapPicture} picture */
  update(picture) {
    this.#picture = picture;
    setText(this.#title, `The ${counted(picture.edges.length, "line")} of the map as a list`);
    this.#fill();
  }

  #fill() {
    if (this.#picture === null || !this.element.open) return;
    const { columns, edges } = this.#picture;
    const names = new Map(columns.flatMap(({ title, side, nodes }) => nodes.map((node) => [
      node.id, node.folded ? `others: ${node.note}${side === "here" ? ` of ${title}` : ""}` : node.label,
    ])));
    const sorted = [...edges].sort((one, two) => two.count - one.count || (one.id < two.id ? -1 : 1));
    while (this.#body.rows.length > sorted.length) this.#body.deleteRow(-1);
    while (this.#body.rows.length < sorted.length) {
      const row = this.#body.insertRow();
      for (let cell = 0; cell < TITLES.length; cell += 1) row.insertCell();
      const button = element("button");
      button.type = "button";
      row.cells[2].append(button);
    }
    sorted.forEach((edge, index) => {
      const { cells } = this.#body.rows[index];
      setText(cells[0], names.get(edge.from) ?? "?");
      setText(cells[1], `${names.get(edge.to) ?? "?"}${edge.dashed ? " (ambiguous)" : ""}`);
      const button = /** @type {HTMLButtonElement} */ (cells[2].firstChild);
      setText(button, count(edge.count));
      button.dataset.words = edge.words.join(" ");
      button.disabled = edge.words.length === 0;
      button.title = edge.words.length ? safe(`Filter: ${edge.words.join(" ")}`) : "";
      setText(cells[3], edge.closeWait ? count(edge.closeWait) : "");
    });
  }
}
