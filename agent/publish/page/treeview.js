// The view of the tree: units or containers, their processes, and the sockets of these.

import { element, Lines, moved, setText } from "./lines.js";
import { inSlices, Throttle } from "./slices.js";
import { count } from "./text.js";
import { countWords, flatten, socketTexts, Tree } from "./tree.js";

/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./tree.js").Branch} Branch */
/** @typedef {import("./tree.js").Item} Item */
/** @typedef {{state: {rows: ReadonlyMap<string, Row>, version: number}}} Model */
/** @typedef {{onSelect: (row: Row) => void, onFilter: (words: string[]) => void}} TreeOptions */

const INTERVAL = 1000;
// So many units are unfolded at first.
const MAX_UNFOLDED = 8;
const COUNTS = /** @type {const} */ (["listen", "inbound", "outbound", "closeWait"]);

/** The tree, of which only the lines in view are in the document. */
export class TreeView {
  element = element("section", "tree-view");
  #options;
  #tree = element("div", "tree");
  #empty = element("p", "tree-empty", "No sockets.");
  #lines;
  #throttle = new Throttle(INTERVAL, () => this.#build());
  /** @type {Model | null} */
  #model = null;
  /** What the tree was made of. */
  #version = -1;
  #size = 0;
  /** @type {ReadonlyMap<string, Row> | null} */
  #rows = null;
  /** @type {Branch[]} */
  #branches = [];
  /** @type {Item[]} */
  #items = [];
  /** The ids of what is unfolded. @type {Set<string>} */
  #expanded = new Set();
  #hadHosts = false;
  #hadUnits = false;
  #selected = "";
  #index = -1;
  #ids = 0;

  /** @param {TreeOptions} options */
  constructor(options) {
    this.#options = options;
    const head = element("div", "tree-head");
    head.setAttribute("aria-hidden", "true");
    head.append(element("span", "tree-label", "unit or container, process, socket"));
    for (const title of ["listen", "in", "out", "CLOSE_WAIT"]) {
      head.append(element("span", "tree-count", title));
    }
    this.#tree.tabIndex = 0;
    this.#tree.setAttribute("role", "tree");
    this.#tree.setAttribute("aria-label", "Units, processes and sockets");
    this.#lines = new Lines(this.#tree, () => this.#make(), (line, index) => this.#fill(line, index));
    this.#tree.addEventListener("keydown", (event) => this.#onKey(event));
    this.#tree.addEventListener("click", (event) => this.#onClick(event));
    this.element.append(head, this.#tree, this.#empty);
  }

  /** Show the view. */
  show() {
    this.element.hidden = false;
    if (this.#model !== null) void this.#throttle.now();
  }

  /** Hide the view. */
  hide() {
    this.element.hidden = true;
    this.#throttle.cancel();
  }

  /** Show the rows of the model. @param {Model} model */
  render(model) {
    this.#model = model;
    // While a snapshot arrives, what is shown is soon too little.
    const { rows } = model.state;
    const isUrgent = rows !== this.#rows || rows.size > 2 * this.#size;
    if (!this.element.hidden) this.#throttle.request(isUrgent);
  }

  async #build() {
    const state = this.#model?.state;
    if (state === undefined || (state.rows === this.#rows && state.version === this.#version)) return;
    this.#version = state.version;
    this.#rows = state.rows;
    this.#size = state.rows.size;
    const tree = new Tree();
    await inSlices([...state.rows.values()], (row) => tree.add(row));
    this.#branches = tree.branches();
    const hasHosts = this.#branches[0]?.kind === "host";
    if (hasHosts && !this.#hadHosts) {
      for (const branch of this.#branches) this.#expanded.add(branch.id);
    }
    this.#hadHosts = hasHosts;
    if (!this.#hadUnits && this.#branches.length) {
      this.#hadUnits = true;
      if (this.#branches.length <= MAX_UNFOLDED) {
        for (const branch of this.#branches) this.#expanded.add(branch.id);
      }
    }
    this.#flatten();
  }

  #flatten() {
    this.#items = flatten(this.#branches, this.#expanded);
    const found = this.#items.findIndex((item) => item.id === this.#selected);
    // What ended gives the selection to what took its place.
    this.#index = found >= 0 ? found : Math.min(this.#index, this.#items.length - 1);
    if (this.#selected) this.#selected = this.#items[this.#index]?.id ?? "";
    this.#empty.hidden = this.#items.length > 0;
    this.#lines.length = this.#items.length;
    this.#lines.paint(true);
  }

  #make() {
    const line = element("div", "tree-line");
    line.id = `tree-${(this.#ids += 1)}`;
    line.setAttribute("role", "treeitem");
    const label = element("span", "tree-label");
    const filter = element("button", "tree-filter", "filter");
    filter.type = "button";
    filter.tabIndex = -1;
    filter.setAttribute("aria-hidden", "true");
    filter.title = "Filter by this (f)";
    label.append(element("span", "tree-fold"), element("span", "tree-name"),
      element("span", "tree-note"), filter);
    line.append(label, ...COUNTS.map(() => element("span", "tree-count")));
    return line;
  }

  /** @param {HTMLElement} line @param {number} index */
  #fill(line, index) {
    const item = this.#items[index];
    const [label, ...counts] = line.children;
    const [fold, name, note, filter] = label.children;
    line.dataset.index = String(index);
    line.dataset.kind = item.branch?.kind ?? "socket";
    line.style.setProperty("--level", String(item.level - 1));
    setText(fold, item.expanded === null ? "" : item.expanded ? "▾" : "▸");
    let described;
    if (item.branch !== null) {
      const { branch } = item;
      setText(name, branch.label);
      setText(note, branch.kind === "place" && branch.children.length === 1 &&
        branch.note !== "container" ? branch.children[0].label : noteOf(branch));
      described = `${branch.label}: ${countWords(branch.counts) || count(branch.counts.total)}`;
      COUNTS.forEach((field, at) =>
        setText(counts[at], branch.counts[field] ? count(branch.counts[field]) : ""));
      filter.classList.toggle("is-none", branch.words.length === 0);
    } else {
      const texts = socketTexts(/** @type {Row} */ (item.row).record);
      setText(name, `${texts.proto.padEnd(5)} ${texts.way.padEnd(4)} ${texts.ends}`);
      setText(note, texts.state);
      described = `${texts.proto} ${texts.way} ${texts.ends} ${texts.state}`;
      for (const cell of counts) setText(cell, "");
      filter.classList.add("is-none");
    }
    line.classList.toggle("is-bad", item.branch ? item.branch.counts.closeWait > 0
      : item.row?.record.state === "CLOSE_WAIT");
    const attributes = {
      level: item.level, posinset: item.position, setsize: item.size, label: described,
      selected: item.id === this.#selected,
    };
    for (const [key, value] of Object.entries(attributes)) {
      line.setAttribute(`aria-${key}`, String(value));
    }
    if (item.expanded === null) line.removeAttribute("aria-expanded");
    else line.setAttribute("aria-expanded", String(item.expanded));
    if (attributes.selected) this.#tree.setAttribute("aria-activedescendant", line.id);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const item = this.#items[this.#index];
    const index = moved(event.key, this.#index, this.#items.length, this.#lines.page);
    if (index !== null) this.#select(index);
    else if (item === undefined) return;
    else if (event.key === "Enter") this.#activate(item);
    else if (event.key === "ArrowRight" && item.expanded === false) this.#toggle([item], true);
    else if (event.key === "ArrowRight") this.#select(this.#index + (item.expanded ? 1 : 0));
    else if (event.key === "ArrowLeft" && item.expanded) this.#toggle([item], false);
    else if (event.key === "ArrowLeft") this.#select(this.#parent(this.#index));
    else if (event.key === "*" && item.expanded !== null) {
      const parent = this.#parent(this.#index);
      this.#toggle(this.#items.filter((other, at) => other.level === item.level &&
        this.#parent(at) === parent), true);
    } else if (event.key === "f" && item.branch?.words.length) {
      this.#options.onFilter(item.branch.words);
    } else return;
    event.preventDefault();
  }

  /** Return the place of the parent of a line, or its own if it has none. @param {number} index */
  #parent(index) {
    const { level } = this.#items[index];
    for (let at = index - 1; at >= 0; at -= 1) if (this.#items[at].level < level) return at;
    return index;
  }

  /** @param {MouseEvent} event */
  #onClick(event) {
    const target = event.target instanceof Element ? event.target : null;
    const line = target?.closest(".tree-line");
    if (!(line instanceof HTMLElement)) return;
    this.#select(Number(line.dataset.index));
    const item = this.#items[this.#index];
    if (target?.closest(".tree-filter") && item.branch) this.#options.onFilter(item.branch.words);
    else this.#activate(item);
  }

  /** @param {Item} item */
  #activate(item) {
    if (item.row !== null) this.#options.onSelect(item.row);
    else this.#toggle([item], !item.expanded);
  }

  /** @param {Item[]} items @param {boolean} open */
  #toggle(items, open) {
    for (const { id, expanded } of items) {
      if (expanded === null) continue;
      if (open) this.#expanded.add(id);
      else this.#expanded.delete(id);
    }
    this.#flatten();
  }

  /** @param {number} index */
  #select(index) {
    if (this.#items.length === 0) return;
    this.#index = Math.max(0, Math.min(index, this.#items.length - 1));
    this.#selected = this.#items[this.#index].id;
    this.#lines.reveal(this.#index);
    this.#lines.paint(true);
  }
}

/** @param {Branch} branch */
function noteOf(branch) {
  if (branch.kind !== "place") return branch.note;
  const processes = `${count(branch.children.length)} processes`;
  return branch.note === "container" ? `container, ${processes}` : processes;
}
