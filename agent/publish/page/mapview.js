// The view of the map: boxes that are buttons over lines of SVG, and the same as a list.

import { MapModel } from "./map.js";
import { makeBox, makeLine, writeBox, writeLine } from "./mapdraw.js";
import { layOut, neighbour } from "./maplayout.js";
import { Graph } from "./graph.js";
import { element, setText } from "./lines.js";
import { MapList } from "./maplist.js";
import { arrow, legend, svg } from "./mapparts.js";
import { inSlices, nextTask, Throttle } from "./slices.js";
import { counted } from "./text.js";
import { Unmatched } from "./unmatched.js";

/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./map.js").MapPicture} MapPicture */
/** @typedef {import("./maplayout.js").Box} Box */
/** @typedef {import("./maplayout.js").Line} Line */
/** @typedef {import("./model.js").Model} Model */

const INTERVAL = 1000;

/** Who calls whom. */
export class MapView {
  element = element("section", "map-view");
  #onFilter;
  #model = new MapModel();
  #unmatched = new Unmatched();
  #throttle = new Throttle(INTERVAL, () => this.#update());
  #scroll = element("div", "map-scroll");
  #canvas = element("div", "map-canvas");
  #svg = svg("svg");
  #paths = svg("g");
  // Above all paths.
  #texts = svg("g");
  #summary = element("p", "map-summary");
  #empty = element("p", "map-empty");
  #list;
  /** @type {Map<string, HTMLButtonElement>} */
  #boxes = new Map();
  /** @type {Map<string, import("./mapdraw.js").Drawn>} */
  #lines = new Map();
  /** @type {HTMLElement[]} */
  #titles = [];
  /** What was rendered last. @type {Model | null} */
  #rendered = null;
  /** @type {ReadonlyMap<string, Row> | null} */
  #rows = null;
  /** How many hosts were drawn. */
  #hosts = 0;
  /** @type {MapPicture | null} */
  #picture = null;
  /** @type {Map<string, Box>} */
  #places = new Map();
  #options = { unix: false, all: false };
  #current = "";
  /** The box or line under the pointer or with the focus. */
  #marked = "";

  /** @param {(words: string[]) => void} onFilter is called with the words of a box or line */
  constructor(onFilter) {
    this.#onFilter = onFilter;
    this.#list = new MapList(onFilter);
    const bar = element("div", "map-bar");
    bar.append(this.#summary, this.#choice("unix", "unix sockets"), this.#choice("all", "all units"));
    this.#canvas.setAttribute("role", "group");
    this.#canvas.setAttribute("aria-label", "Map of connections; arrow keys move, Enter filters");
    this.#svg.setAttribute("aria-hidden", "true");
    this.#svg.append(arrow("map-arrow"), arrow("map-arrow-bad"), this.#paths, this.#texts);
    this.#canvas.append(this.#svg);
    this.#scroll.append(bar, this.#canvas, this.#empty, legend(), this.#list.element);
    this.element.append(this.#scroll);
    this.#canvas.addEventListener("keydown", (event) => this.#onKey(event));
    this.#canvas.addEventListener("click", (event) => this.#onClick(event));
    for (const type of ["pointerover", "focusin"]) {
      this.#canvas.addEventListener(type, (event) => this.#highlight(event.target));
    }
    for (const type of ["pointerleave", "focusout"]) {
      this.#canvas.addEventListener(type, () => this.#highlight(null));
    }
    new ResizeObserver(() => requestAnimationFrame(() => this.#draw())).observe(this.#scroll);
  }

  /** Show the view. */
  show() {
    this.element.hidden = false;
    if (this.#rendered !== null) void this.#throttle.now();
  }

  /** Hide the view. */
  hide() {
    this.element.hidden = true;
    this.#throttle.cancel();
  }

  /**
   * Show the rows of the model: at most once a second, and at once those of a host that is new.
   * @param {Model} model
   */
  render(model) {
    this.#rendered = model;
    const { state: { rows }, joinedHosts } = model;
    const isUrgent = rows !== this.#rows || joinedHosts.size !== this.#hosts;
    if (!this.element.hidden) this.#throttle.request(isUrgent);
  }

  /** @param {"unix" | "all"} name @param {string} text */
  #choice(name, text) {
    const label = element("label", "map-choice");
    const box = element("input");
    box.type = "checkbox";
    box.addEventListener("change", () => {
      this.#options[name] = box.checked;
      void this.#throttle.now();
    });
    label.append(box, text);
    return label;
  }

  async #update() {
    if (this.#rendered === null) return;
    const { state, peers, joinedHosts } = this.#rendered;
    if (state.rows !== this.#rows) {
      // Another stream or filter: what is not in it has not ended.
      this.#rows = state.rows;
      this.#model = new MapModel();
    }
    this.#hosts = joinedHosts.size;
    // While a snapshot arrives, ends seem to be single because the other end is still to come.
    const isWhole = joinedHosts.size > 0 && joinedHosts.size === state.hosts.size;
    const rows = [...state.rows.values()].filter(({ record }) => joinedHosts.has(record.host));
    const now = performance.now();
    const graph = new Graph(peers, this.#options.unix, this.#unmatched, now);
    await inSlices(rows, (row) => graph.take(row));
    await inSlices(graph.sockets(), (row) => graph.add(row));
    await nextTask();
    this.#picture = this.#model.update(
      graph.nodes(), now, this.#options.all, state.rows,
    );
    const { processes, edges } = this.#picture;
    const total = edges.reduce((sum, edge) => sum + edge.count, 0);
    setText(this.#summary, `${counted(total, "connection")} of ${counted(processes, "process")}`);
    this.#empty.hidden = edges.length > 0;
    setText(this.#empty, isWhole ? "No connections." : "The snapshot is coming.");
    this.#list.update(this.#picture);
    this.#draw();
  }

  #draw() {
    const width = this.#scroll.clientWidth - 24;
    if (this.#picture === null || width <= 0) return;
    const layout = layOut(this.#picture, width);
    this.#canvas.style.width = `${layout.width}px`;
    this.#canvas.style.height = `${layout.height}px`;
    this.#svg.setAttribute("width", String(layout.width));
    this.#svg.setAttribute("height", String(layout.height));
    while (this.#titles.length < layout.titles.length) {
      const made = element("h2", "map-title");
      this.#titles.push(made);
      this.#canvas.append(made);
    }
    this.#titles.forEach((title, index) => {
      title.hidden = index >= layout.titles.length;
      if (title.hidden) return;
      const isSilent = this.#isSilent(index);
      setText(title, layout.titles[index].title + (isSilent ? " (silent)" : ""));
      title.classList.toggle("is-silent", isSilent);
      title.style.left = `${layout.titles[index].x}px`;
      title.style.width = `${layout.boxWidth}px`;
    });
    this.#places = new Map(layout.boxes.map((box) => [box.node.id, box]));
    if (!this.#places.has(this.#current)) this.#current = layout.boxes[0]?.node.id ?? "";
    keep(this.#boxes, layout.boxes.map(({ node }) => node.id), (box) => box.remove());
    for (const box of layout.boxes) this.#drawBox(box, layout.boxWidth);
    keep(this.#lines, layout.lines.map(({ edge }) => edge.id), ({ group, text }) => {
      group.remove();
      text.remove();
    });
    for (const line of layout.lines) this.#drawLine(line);
    this.#mark();
  }

  /** Return whether nothing comes of the host of a column. @param {number} index */
  #isSilent(index) {
    const id = this.#picture?.columns[index]?.id;
    return id !== undefined && (this.#rendered?.silent.has(id) ?? false);
  }

  /** @param {Box} box @param {number} width */
  #drawBox(box, width) {
    const { id } = box.node;
    let button = this.#boxes.get(id);
    if (button === undefined) {
      this.#boxes.set(id, (button = makeBox(id)));
      this.#canvas.append(button);
    }
    writeBox(button, box, width, this.#isSilent(box.column));
    button.tabIndex = id === this.#current ? 0 : -1;
  }

  /** @param {Line} line */
  #drawLine(line) {
    const { id, from, to } = line.edge;
    let drawn = this.#lines.get(id);
    if (drawn === undefined) {
      this.#lines.set(id, (drawn = makeLine(line)));
      this.#paths.append(drawn.group);
      this.#texts.append(drawn.text);
    }
    const [caller, called] = [from, to].map((end) => this.#places.get(end)?.node.label ?? "?");
    writeLine(drawn, line, `${caller} → ${called}`);
  }

  /** Mark the lines of a box, or a line, and their ends. @param {EventTarget | null} target */
  #highlight(target) {
    const found = target instanceof Element ? target.closest("[data-id]") : null;
    this.#marked = found?.getAttribute("data-id") ?? "";
    this.#mark();
  }

  #mark() {
    const id = this.#marked;
    /** @type {Set<string>} */
    const ends = new Set();
    for (const [key, { group, text, line }] of this.#lines) {
      const isOn = key === id || line.edge.from === id || line.edge.to === id;
      group.classList.toggle("is-on", isOn);
      text.classList.toggle("is-on", isOn);
      if (isOn) ends.add(line.edge.from).add(line.edge.to);
    }
    if (this.#boxes.has(id)) ends.add(id);
    for (const [key, button] of this.#boxes) button.classList.toggle("is-on", ends.has(key));
    this.#canvas.classList.toggle("has-on", ends.size > 0);
  }

  /** @param {MouseEvent} event also that of Enter on a box */
  #onClick(event) {
    const found = event.target instanceof Element ? event.target.closest("[data-id]") : null;
    if (!(found instanceof HTMLElement || found instanceof SVGElement)) return;
    const id = found.dataset.id ?? "";
    const words = this.#places.get(id)?.node.words ?? this.#lines.get(id)?.line.edge.words ?? [];
    if (words.length) this.#onFilter(words);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const here = this.#places.get(this.#current);
    if (here === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = neighbour(here, [...this.#places.values()], event.key);
    if (next === null) return;
    event.preventDefault();
    for (const id of [this.#current, next.node.id]) {
      const button = this.#boxes.get(id);
      if (button) button.tabIndex = id === next.node.id ? 0 : -1;
    }
    this.#current = next.node.id;
    this.#boxes.get(this.#current)?.focus();
  }
}

/** Drop what has none of these ids.
 * @template T @param {Map<string, T>} map @param {string[]} ids @param {(value: T) => void} drop */
function keep(map, ids, drop) {
  const kept = new Set(ids);
  for (const [id, value] of map) {
    if (kept.has(id)) continue;
    drop(value);
    map.delete(id);
  }
}
