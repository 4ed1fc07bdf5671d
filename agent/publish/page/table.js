// The table: a grid of which only the rows in view are in the document.

import { TableHead } from "./tablehead.js";
import { part, RowElement, Widths } from "./tablerow.js";
import { ROW_HEIGHT, Viewport } from "./viewport.js";

/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./columns.js").Column} Column */
/** @typedef {import("./tablerow.js").Context} Context */
/** @typedef {import("./order.js").Entry} Entry */
/**
 * @typedef {object} TableOptions
 * @property {readonly Column[]} columns
 * @property {(row: Row) => void} onSelect
 * @property {(row: Row) => void} onActivate for Enter and a click
 * @property {(id: string, descending: boolean) => void} onSort
 */

// In milliseconds: for how long the order stays after a key or a click, and after a movement.
const HOLD = 2000;
const HOLD_AFTER_MOVE = 500;

/** The grid in an element. Times are those of `performance.now()`. */
export class Table {
  /** Until when the order of the rows should stay as it is. */
  heldUntil = 0;
  #element;
  #options;
  #head;
  #body = part("body", "rowgroup");
  #window = part("window", "presentation");
  /** @type {readonly Entry[]} */
  #entries = [];
  /** @type {RowElement[]} */
  #pool = [];
  /** The place of the first row of the pool in the order. */
  #first = 0;
  /** @type {Context} */
  #context = { now: 0, peerOf: () => null, silent: new Map() };
  /** @type {Widths} */
  #widths;
  /** @type {string | null} */
  #selected = null;
  /** Where the selected row was found last. */
  #selectedIndex = -1;
  #viewport = new Viewport();

  /**
   * @param {HTMLElement} element
   * @param {TableOptions} options
   */
  constructor(element, options) {
    this.#element = element;
    this.#options = options;
    this.#head = new TableHead((id, descending) => {
      this.hold(HOLD);
      options.onSort(id, descending);
    });
    this.#widths = new Widths(options.columns);
    element.classList.add("grid");
    element.setAttribute("role", "grid");
    element.setAttribute("aria-label", "sockets");
    element.tabIndex = 0;
    element.style.setProperty("--row-height", `${ROW_HEIGHT}px`);
    this.#body.append(this.#window);
    element.append(this.#head.element, this.#body);
    element.addEventListener("scroll", () => this.#paint(), { passive: true });
    element.addEventListener("keydown", (event) => this.#onKey(event));
    element.addEventListener("pointerdown", () => this.hold(HOLD));
    element.addEventListener("pointermove", () => this.hold(HOLD_AFTER_MOVE), { passive: true });
    element.addEventListener("wheel", () => this.hold(HOLD_AFTER_MOVE), { passive: true });
    this.#body.addEventListener("click", (event) => this.#onClick(event));
    new ResizeObserver(() => this.#resize()).observe(element);
    this.setColumns(options.columns);
  }

  /** The key of the selected row, null without one. */
  get selected() {
    return this.#selected;
  }

  /**
   * Keep the order of the rows for some milliseconds from now.
   * @param {number} duration
   */
  hold(duration) {
    this.heldUntil = Math.max(this.heldUntil, performance.now() + duration);
  }

  /**
   * Show other columns.
   * @param {readonly Column[]} columns
   */
  setColumns(columns) {
    this.#widths = new Widths(columns);
    this.#element.setAttribute("aria-colcount", String(columns.length));
    this.#head.setColumns(columns);
    this.#window.replaceChildren();
    this.#pool = [];
    this.#resize();
  }

  /**
   * Mark the column by which the rows are sorted. The next setRows() begins at the top, unless the
   * selected row is in view.
   * @param {string} id
   * @param {boolean} descending
   */
  setSort(id, descending) {
    this.#head.setSort(id, descending);
    if (!this.#isSelectedShown()) this.#element.scrollTop = 0;
  }

  /**
   * Show entries in another order. The selected row, or else the first one, stays where it is in
   * view.
   * @param {readonly Entry[]} entries
   */
  setRows(entries) {
    const anchor = this.#anchor();
    this.#entries = entries;
    this.#viewport.rows = entries.length;
    this.#body.style.height = `${this.#viewport.scrollHeight}px`;
    this.#element.setAttribute("aria-rowcount", String(entries.length + 1));
    for (const { entry, offset } of anchor) {
      const index = entries.indexOf(entry);
      if (index < 0) continue;
      this.#scroll(this.#viewport.scrollTo(index * ROW_HEIGHT - offset));
      break;
    }
    this.#paint();
  }

  /**
   * Write what changed in the rows in view.
   * @param {Context} context
   */
  update(context) {
    this.#context = context;
    this.#paint();
  }

  /**
   * Select the row of a key, and bring it into view if it is listed. Null selects nothing.
   * @param {string | null} key
   */
  select(key) {
    this.#selected = key;
    this.#selectedIndex = this.#indexOfSelected();
    this.#revealSelected();
    this.#paint();
  }

  /** Focus the grid. */
  focus() {
    this.#element.focus();
  }

  #revealSelected() {
    if (this.#selectedIndex < 0) return;
    this.#scroll(this.#viewport.reveal(this.#selectedIndex, this.#element.scrollTop));
  }

  /** @param {number} scrollTop */
  #scroll(scrollTop) {
    if (Math.abs(scrollTop - this.#element.scrollTop) >= 1) this.#element.scrollTop = scrollTop;
  }

  /** Return entries, the first of which should stay at its offset from the top of the view. */
  #anchor() {
    const top = this.#viewport.top(this.#element.scrollTop);
    const shown = this.#pool.flatMap(({ entry }, position) => {
      const offset = (this.#first + position) * ROW_HEIGHT - top;
      const isShown = entry !== null && offset > -ROW_HEIGHT && offset < this.#viewport.height;
      return isShown ? [{ entry, offset }] : [];
    });
    const selected = shown.filter(({ entry }) => entry.row.key === this.#selected);
    return top > 0 ? [...selected, ...shown] : selected;
  }

  #isSelectedShown() {
    return this.#anchor().at(0)?.entry.row.key === this.#selected;
  }

  #resize() {
    const isSelectedShown = this.#isSelectedShown();
    const height = this.#element.clientHeight - this.#head.element.offsetHeight;
    this.#viewport.height = Math.max(0, height);
    const rows = this.#viewport.poolSize;
    while (this.#pool.length > rows) this.#pool.pop()?.element.remove();
    while (this.#pool.length < rows) {
      const row = new RowElement(this.#widths);
      this.#pool.push(row);
      this.#window.append(row.element);
    }
    if (isSelectedShown) this.#revealSelected();
    this.#paint();
  }

  #paint() {
    const { scrollTop } = this.#element;
    const first = this.#viewport.first(scrollTop);
    this.#rotate(first - this.#first);
    this.#first = first;
    let active = "";
    for (const [position, row] of this.#pool.entries()) {
      const entry = this.#entries[first + position];
      const isSelected = entry !== undefined && entry.row.key === this.#selected;
      row.show(entry, first + position, isSelected, this.#context);
      if (isSelected) {
        active = row.element.id;
        this.#selectedIndex = first + position;
      }
    }
    const top = scrollTop - this.#viewport.top(scrollTop) + first * ROW_HEIGHT;
    this.#window.style.transform = `translateY(${top}px)`;
    this.#setActive(active);
    this.#applyWidths();
  }

  /** Move rows that left the view at one side to the other, so that the others stay unwritten.
   * @param {number} steps */
  #rotate(steps) {
    const pool = this.#pool;
    if (steps === 0 || Math.abs(steps) >= pool.length) return;
    if (steps > 0) {
      const moved = pool.splice(0, steps);
      pool.push(...moved);
      this.#window.append(...moved.map(({ element }) => element));
    } else {
      const moved = pool.splice(steps);
      pool.unshift(...moved);
      this.#window.prepend(...moved.map(({ element }) => element));
    }
  }

  /** @param {string} id of the element of the selected row, empty if it is not in view */
  #setActive(id) {
    const name = "aria-activedescendant";
    if ((this.#element.getAttribute(name) ?? "") === id) return;
    if (id === "") this.#element.removeAttribute(name);
    else this.#element.setAttribute(name, id);
  }

  #applyWidths() {
    if (!this.#widths.changed) return;
    this.#widths.changed = false;
    const tracks = this.#widths.values.map((width) => `calc(${width}ch + var(--gap))`);
    const { style } = this.#element;
    style.setProperty("--tracks", tracks.join(" "));
    style.setProperty("--total", `calc(${tracks.join(" + ")})`);
  }

  #indexOfSelected() {
    const { row } = this.#entries[this.#selectedIndex] ?? {};
    if (row !== undefined && row.key === this.#selected) return this.#selectedIndex;
    return this.#entries.findIndex((entry) => entry.row.key === this.#selected);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.target !== this.#element || event.ctrlKey || event.metaKey || event.altKey) return;
    this.hold(HOLD);
    const found = this.#indexOfSelected();
    if (event.key === "Enter") {
      if (found >= 0) this.#options.onActivate(this.#entries[found].row);
      return;
    }
    const distance = this.#viewport.distance(event.key);
    if (distance === 0 || this.#entries.length === 0) return;
    event.preventDefault();
    // Where the selected row is gone, go on from its place; without one, from the top of the view.
    const none = Math.ceil(this.#viewport.top(this.#element.scrollTop) / ROW_HEIGHT) - Math.sign(distance);
    const from = found >= 0 ? found : this.#selected !== null ? this.#selectedIndex : none;
    this.#choose(Math.min(this.#entries.length - 1, Math.max(0, from + distance)));
  }

  /** @param {number} index */
  #choose(index) {
    const { row } = this.#entries[index];
    this.#selectedIndex = index;
    this.select(row.key);
    this.#options.onSelect(row);
  }

  /** @param {MouseEvent} event */
  #onClick(event) {
    const position = this.#pool.findIndex(
      ({ element }) => event.target instanceof Node && element.contains(event.target),
    );
    const entry = this.#pool[position]?.entry;
    if (!entry) return;
    this.#choose(this.#first + position);
    this.#options.onActivate(entry.row);
  }
}
