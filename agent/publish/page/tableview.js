// The view of the table: its rows in order, and the menu of its columns.

import { ColumnMenu } from "./columnmenu.js";
import { chosenColumns, COLUMNS } from "./columns.js";
import { Order } from "./order.js";
import { Table } from "./table.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./columns.js").Column} Column */
/** @typedef {{state: State, peers: import("./peers.js").Peers | null, log: import("./eventlog.js").EventLog}} Model */
/** @typedef {{sort: string, descending: boolean, columns: readonly string[] | null}} Choice */

/**
 * @typedef {object} TableViewOptions
 * @property {(choice: Choice) => void} onChoice is called after a user chose the order or columns
 * @property {(row: Row) => void} onSelect is called for each row that becomes the selected one
 * @property {(row: Row) => void} onActivate is called for Enter and a click
 */

// Milliseconds between two orders of the rows.
const SETTLE_INTERVAL = 250;
const FIRST_SORT = "process";

/**
 * The table. It takes the changes of the state: nothing else may take them.
 * render() is called after changes, and at least every 250 ms, because rows also age.
 */
export class TableView {
  element = document.createElement("section");
  #onChoice;
  #order = new Order(columnOf(FIRST_SORT), false);
  #table;
  #menu = new ColumnMenu((ids) => this.#choose({ columns: ids }));
  /** @type {Choice} */
  #choice = { sort: FIRST_SORT, descending: false, columns: null };
  #columns = chosenColumns(null, false);
  #severalHosts = false;
  #settled = -Infinity;
  /** What was rendered last. @type {{model: Model, now: number} | null} */
  #last = null;

  /** @param {TableViewOptions} options */
  constructor({ onChoice, onSelect, onActivate }) {
    this.#onChoice = onChoice;
    this.element.className = "table-view";
    this.element.setAttribute("aria-label", "Table");
    const grid = document.createElement("div");
    this.#menu.setColumns(this.#columns.map(({ id }) => id));
    this.#table = new Table(grid, {
      columns: this.#columns,
      onSelect,
      onActivate,
      onSort: (sort, descending) => this.#choose({ sort, descending }),
    });
    this.#table.setSort(FIRST_SORT, false);
    this.element.append(this.#menu.element, grid);
  }

  /** Show the view. */
  show() {
    this.element.hidden = false;
  }

  /** Hide the view. */
  hide() {
    this.element.hidden = true;
  }

  /**
   * Take the order and the columns of the address of the page. Names that are none are left out.
   * @param {Choice} choice
   */
  setChoice({ sort, descending, columns }) {
    const known = COLUMNS.has(sort) ? sort : FIRST_SORT;
    this.#choice = { sort: known, descending, columns };
    const column = columnOf(known);
    if (column !== this.#order.column || descending !== this.#order.descending) {
      this.#order.sortBy(column, descending);
      this.#table.setSort(known, descending);
    }
    this.#setColumns();
    this.#settle();
  }

  /**
   * Select the row of a key, and bring it into view. Null selects nothing.
   * @param {string | null} key
   */
  select(key) {
    this.#table.select(key);
  }

  /** Focus the table. */
  focus() {
    this.#table.focus();
  }

  /**
   * Show the rows of the state.
   * @param {Model} model
   * @param {number} now in ms since the Unix epoch: ages are counted to it
   */
  render(model, now) {
    this.#last = { model, now };
    const { state } = model;
    const time = performance.now();
    this.#order.take(state.takeChanges(), state.rows, time);
    if (state.hosts.size > 1 !== this.#severalHosts) {
      this.#severalHosts = state.hosts.size > 1;
      this.#setColumns();
    }
    if (time >= this.#table.heldUntil && time >= this.#settled + SETTLE_INTERVAL) this.#settle();
    this.#table.update(this.#context());
  }

  /** @param {Partial<Choice>} change */
  #choose(change) {
    this.setChoice({ ...this.#choice, ...change });
    this.#onChoice(this.#choice);
  }

  #setColumns() {
    const columns = chosenColumns(this.#choice.columns, this.#severalHosts);
    if (columns.length === this.#columns.length && columns.every((c, i) => c === this.#columns[i])) {
      return;
    }
    this.#columns = columns;
    this.#menu.setColumns(columns.map(({ id }) => id));
    this.#table.setColumns(columns);
  }

  #settle() {
    this.#settled = performance.now();
    const isNew = this.#order.settle(this.#settled, this.#context());
    if (isNew) this.#table.setRows(this.#order.entries);
  }

  /** @returns {import("./columns.js").Context} */
  #context() {
    const peers = this.#last?.model.peers ?? null;
    const peerOf = (/** @type {Row} */ row) => peers?.of(row).row ?? null;
    return { now: this.#last?.now ?? 0, peerOf };
  }
}

/** @param {string} id @returns {Column} */
function columnOf(id) {
  return /** @type {Column} */ (COLUMNS.get(id));
}
