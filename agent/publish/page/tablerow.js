// An element of the table that shows one row after another: only what differs is written.

import { marks, shorten } from "./columns.js";

/** @typedef {import("./columns.js").Column} Column */
/**
 * `silent`: the hosts of which nothing comes.
 * @typedef {import("./columns.js").Context & {silent: ReadonlyMap<string, number>}} Context
 */
/** @typedef {import("./order.js").Entry} Entry */

// A longer text of a column that is never shortened runs out of its cell.
const MAX_WIDTH = 60;
let lastId = 0;

/**
 * Make an element with a class and a role.
 * @param {string} className
 * @param {string} role
 * @returns {HTMLDivElement}
 */
export function part(className, role) {
  const element = document.createElement("div");
  element.className = className;
  element.setAttribute("role", role);
  return element;
}

/** The columns of a table and how wide each is now, in characters. */
export class Widths {
  /** @param {readonly Column[]} columns */
  constructor(columns) {
    this.columns = columns;
    // The title stands beside the mark of the order.
    this.values = columns.map(({ title, width }) => Math.max(width, title.length + 2));
    /** Whether the values changed since they were applied. */
    this.changed = true;
  }

  /**
   * Return the text of a cell that fits: shortened, or the column becomes wider.
   * @param {number} index
   * @param {string} text
   * @param {Entry} entry
   */
  fitted(index, text, { row }) {
    const width = this.values[index];
    if (text.length <= width) return text;
    if (this.columns[index].isElided(row.record)) return shorten(text, width);
    if (width < MAX_WIDTH) {
      this.values[index] = Math.min(text.length, MAX_WIDTH);
      this.changed = true;
    }
    return text;
  }
}

/** One of the elements of the pool. */
export class RowElement {
  /** The entry that it shows. @type {Entry | null} */
  entry = null;
  element = part("row", "row");
  /** @type {{element: HTMLDivElement, node: Text, text: string}[]} */
  #cells = [];
  #widths;
  #index = -1;
  #className = "row";
  #isSelected = false;

  /** @param {Widths} widths */
  constructor(widths) {
    this.#widths = widths;
    this.element.id = `row-${(lastId += 1)}`;
    this.element.setAttribute("aria-selected", "false");
    for (const [index, { id, align }] of widths.columns.entries()) {
      const element = part(`cell ${id} ${align}`, "gridcell");
      element.setAttribute("aria-colindex", String(index + 1));
      const node = document.createTextNode("");
      element.append(node);
      this.element.append(element);
      this.#cells.push({ element, node, text: "" });
    }
  }

  /**
   * Show an entry, or nothing.
   * @param {Entry | undefined} entry
   * @param {number} index its place in the order
   * @param {boolean} isSelected
   * @param {Context} context
   */
  show(entry, index, isSelected, context) {
    if ((entry === undefined) !== this.element.hidden) this.element.hidden = entry === undefined;
    this.entry = entry ?? null;
    if (entry === undefined) return;
    if (index !== this.#index) {
      this.#index = index;
      this.element.setAttribute("aria-rowindex", String(index + 2)); // The titles are row 1.
    }
    if (isSelected !== this.#isSelected) {
      this.#isSelected = isSelected;
      this.element.setAttribute("aria-selected", String(isSelected));
    }
    this.#classify(entry, context.silent);
    this.#write(entry, context);
  }

  /** @param {Entry} entry @param {Context["silent"]} silent */
  #classify(entry, silent) {
    const closed = entry.closedAt === null ? "" : " closed";
    const selected = this.#isSelected ? " selected" : "";
    const { record } = entry.row;
    const quiet = silent.has(record.host) ? " silent" : "";
    const className = `row ${marks(record)}${closed}${quiet}${selected}`;
    if (className === this.#className) return;
    this.#className = this.element.className = className;
  }

  /** @param {Entry} entry @param {Context} context */
  #write(entry, context) {
    const { columns } = this.#widths;
    for (let index = 0; index < columns.length; index++) {
      const { id, value } = columns[index];
      const isClosed = entry.closedAt !== null && id === "state";
      const text = isClosed ? "closed" : value(entry.row, context);
      const cell = this.#cells[index];
      if (text === cell.text) continue;
      const fitted = this.#widths.fitted(index, text, entry);
      if (fitted !== text) cell.element.title = text;
      else if (cell.element.title !== "") cell.element.title = "";
      cell.text = text;
      cell.node.data = fitted;
    }
  }
}
