// The view of the table: its rows in order, the menu of its columns, and the details of a row.

import { ColumnMenu } from "./columnmenu.js";
import { chosenColumns, COLUMNS } from "./columns.js";
import { Details } from "./details.js";
import { emptyText } from "./empty.js";
import { element, setText } from "./lines.js";
import { Order } from "./order.js";
import { keyOf, timeOf } from "./records.js";
import { Table } from "./table.js";
import { isInet, notShown } from "./text.js";

/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./columns.js").Column} Column */
/** @typedef {import("./model.js").Model} Model */
/**
 * What a user chose. `all`: also sockets that are not of the internet, while there is no filter.
 * @typedef {{sort: string, descending: boolean, columns: readonly string[] | null, all: boolean}} Choice
 */

// Milliseconds between two orders of the rows.
const SETTLE_INTERVAL = 250;
const FIRST_SORT = "process";

/**
 * The table and its details. It takes the changes of the state: nothing else may take them.
 * render() is called after changes, and at least every 250 ms, because rows also age.
 */
export class TableView {
  element = document.createElement("section");
  #onChoice;
  #onClear;
  #order = new Order(columnOf(FIRST_SORT), false);
  #table;
  #details;
  #menu = new ColumnMenu((ids) => this.#choose({ columns: ids }));
  /** @type {Choice} */
  #choice = { sort: "", descending: false, columns: null, all: false };
  #columns = chosenColumns(null, false);
  #severalHosts = false;
  #settled = -Infinity;
  #all = element("label", "all");
  #allBox = element("input");
  /** Says which rows are not listed, and lists them. */
  #notShown = element("button", "not-shown");
  /** Says why there are no rows. */
  #empty = element("p", "table-empty");
  /** Whether only the sockets of the internet are listed. */
  #isPart = false;
  /** The rows that were counted last. */
  #countedVersion = -1;
  /** What was rendered last. @type {{model: Model, now: number} | null} */
  #last = null;

  /**
   * @param {(choice: Choice) => void} onChoice is called after a user chose the order or columns
   * @param {() => void} onClear is called to clear the filter
   */
  constructor(onChoice, onClear) {
    this.#onChoice = onChoice;
    this.#onClear = onClear;
    this.element.className = "table-view";
    this.element.setAttribute("aria-label", "Table");
    const grid = document.createElement("div");
    const panel = document.createElement("aside");
    panel.setAttribute("aria-label", "Details");
    this.#menu.setColumns(this.#columns.map(({ id }) => id));
    this.#details = new Details(panel, {
      onClose: () => this.closeDetails(),
      onSelect: (row) => this.open(row.key),
    });
    this.#table = new Table(grid, {
      columns: this.#columns,
      onSelect: (row) => {
        if (this.#details.key !== null) this.#showDetails(row);
      },
      onActivate: (row) => this.#showDetails(row),
      onSort: (sort, descending) => this.#choose({ sort, descending }),
    });
    this.#table.setSort(FIRST_SORT, false);
    const area = document.createElement("div");
    area.className = "table-area";
    const foot = element("div", "table-foot");
    this.#allBox.type = "checkbox";
    this.#allBox.addEventListener("change", () => this.#choose({ all: this.#allBox.checked }));
    this.#all.append(this.#allBox, "unix and others");
    this.#notShown.type = "button";
    this.#notShown.hidden = true;
    this.#notShown.title = "Show them";
    this.#notShown.addEventListener("click", () => this.#showAll());
    this.#empty.hidden = true;
    foot.append(this.#menu.element, this.#all, this.#notShown);
    area.append(grid, this.#empty, foot);
    this.element.append(area, panel);
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
  setChoice({ sort, descending, columns, all }) {
    const known = COLUMNS.has(sort) ? sort : FIRST_SORT;
    this.#choice = { sort: COLUMNS.has(sort) ? sort : "", descending, columns, all };
    const column = columnOf(known);
    if (column !== this.#order.column || descending !== this.#order.descending) {
      this.#order.sortBy(column, descending);
      this.#table.setSort(known, descending);
    }
    this.#setColumns();
    this.#allBox.checked = all;
    this.#list();
    this.#settle();
  }

  /**
   * Select a row and show its details; of a socket that is closed those of its newest event.
   * @param {string} key
   */
  open(key) {
    const known = this.#last?.model.state.rows.get(key);
    const row = known ?? this.#order.get(key)?.row ?? this.#rowOfLog(key);
    if (row === null) return;
    if (known !== undefined && this.#isPart && !isInet(known.record)) this.#choose({ all: true });
    this.#table.select(key);
    this.#showDetails(row);
  }

  /** Close the details. Return whether they were open. */
  closeDetails() {
    const wasOpen = this.#details.key !== null;
    this.#details.hide();
    if (wasOpen) this.#table.focus();
    return wasOpen;
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
    this.#list();
    if (state.hosts.size > 1 !== this.#severalHosts) {
      this.#severalHosts = state.hosts.size > 1;
      this.#setColumns();
    }
    if (time >= this.#table.heldUntil && time >= this.#settled + SETTLE_INTERVAL) this.#settle();
    this.#table.update(this.#context());
    this.#explain(model);
    this.#details.render(model, now);
  }

  /** Say why there are no rows. @param {Model} model */
  #explain(model) {
    const isEmpty = this.#order.size === 0 && this.#order.entries.length === 0;
    const found = isEmpty ? emptyText(model, this.#isPart) : null;
    this.#empty.hidden = found === null;
    if (found === null) return;
    const { before, button: label, after, action } = found;
    if (this.#empty.textContent === before + label + after) return;
    const button = element("button", "link", label);
    button.type = "button";
    button.hidden = action === null;
    button.addEventListener("click", () => {
      if (action === "clear") this.#onClear();
      else this.#showAll();
    });
    this.#empty.replaceChildren(before, button, after);
  }

  #showAll() {
    this.#choose({ all: true });
    this.#table.focus();
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

  /** List the rows that the choice and the model want. */
  #list() {
    if (this.#last === null) return;
    const { state, isEverything } = this.#last.model;
    const isPart = isEverything && !this.#choice.all;
    this.#all.hidden = !isEverything;
    if (isPart === this.#isPart) return;
    this.#isPart = isPart;
    this.#countedVersion = -1;
    this.#order.listOnly(isPart ? ({ record }) => isInet(record) : () => true);
    const changes = { added: [], updated: [], removed: [], all: true };
    this.#order.take(changes, state.rows, performance.now());
  }

  #count() {
    if (this.#last === null) return;
    const { rows, version } = this.#last.model.state;
    if (version === this.#countedVersion) return;
    this.#countedVersion = version;
    const text = this.#isPart ? notShown(rows.values()) : "";
    this.#notShown.hidden = text === "";
    setText(this.#notShown, text);
  }

  #settle() {
    this.#count();
    this.#settled = performance.now();
    const isNew = this.#order.settle(this.#settled, this.#context());
    if (isNew) this.#table.setRows(this.#order.entries);
  }

  /** @returns {import("./tablerow.js").Context} */
  #context() {
    const peers = this.#last?.model.peers ?? null;
    const peerOf = (/** @type {Row} */ row) => peers?.of(row).row ?? null;
    const silent = this.#last?.model.silent ?? new Map();
    return { now: this.#last?.now ?? 0, peerOf, silent };
  }

  /** @param {string} key @returns {Row | null} */
  #rowOfLog(key) {
    const found = this.#last?.model.log.newest(1, (record) => keyOf(record) === key) ?? [];
    const record = found.at(0);
    return record === undefined ? null : { key, record, since: null, changed: timeOf(record) };
  }

  /** @param {Row} row */
  #showDetails(row) {
    this.#details.show(row);
    if (this.#last !== null) this.#details.render(this.#last.model, this.#last.now);
  }
}

/** @param {string} id @returns {Column} */
function columnOf(id) {
  return /** @type {Column} */ (COLUMNS.get(id));
}
