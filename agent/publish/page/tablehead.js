// The titles of the columns, which are buttons that sort.

import { part } from "./tablerow.js";

/** @typedef {import("./columns.js").Column} Column */

const MARKS = { none: "", ascending: " ▲", descending: " ▼" };

/** The row of titles. */
export class TableHead {
  element = part("row titles", "row");
  /** @type {Map<string, {element: HTMLElement, mark: Text}>} */
  #titles = new Map();
  #onSort;
  #sort = "";
  #descending = false;

  /** @param {(id: string, descending: boolean) => void} onSort */
  constructor(onSort) {
    this.#onSort = onSort;
    this.element.setAttribute("aria-rowindex", "1");
  }

  /**
   * Show the titles of some columns.
   * @param {readonly Column[]} columns
   */
  setColumns(columns) {
    this.#titles.clear();
    this.element.replaceChildren(
      ...columns.map(({ id, title, align, help }, index) => {
        const element = part(`cell ${id} ${align}`, "columnheader");
        element.setAttribute("aria-colindex", String(index + 1));
        const button = document.createElement("button");
        const mark = document.createTextNode("");
        const sign = document.createElement("span");
        sign.setAttribute("aria-hidden", "true");
        sign.append(mark);
        button.type = "button";
        button.title = help;
        button.append(title, sign);
        button.addEventListener("click", () => {
          this.#onSort(id, id === this.#sort && !this.#descending);
        });
        element.append(button);
        this.#titles.set(id, { element, mark });
        return element;
      }),
    );
    this.setSort(this.#sort, this.#descending);
  }

  /**
   * Mark the column by which the rows are sorted.
   * @param {string} sort
   * @param {boolean} descending
   */
  setSort(sort, descending) {
    this.#sort = sort;
    this.#descending = descending;
    for (const [id, { element, mark }] of this.#titles) {
      const order = id !== sort ? "none" : descending ? "descending" : "ascending";
      element.setAttribute("aria-sort", order);
      mark.data = MARKS[order];
    }
  }
}
