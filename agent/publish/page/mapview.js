// The view of the map: boxes that are buttons over lines of SVG, and the same as a list.

import { edgeText, MapModel } from "./map.js";
import { BOX_HEIGHT, layOut, neighbour } from "./maplayout.js";
import { element, setText, Throttle } from "./lines.js";
import { MapList } from "./maplist.js";
import { arrow, legend, svg } from "./mapparts.js";
import { Peers } from "./peers.js";
import { count, counted } from "./text.js";

/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./map.js").MapNode} MapNode */
/** @typedef {import("./map.js").MapPicture} MapPicture */
/** @typedef {import("./maplayout.js").Box} Box */
/** @typedef {import("./maplayout.js").Line} Line */
/**
 * @typedef {object} Model
 * @property {{rows: ReadonlyMap<string, Row>, version: number}} state
 * @property {Peers | null} peers
 */
/** @typedef {{group: SVGGElement, hit: SVGPathElement, path: SVGPathElement, wait: SVGPathElement, text: SVGTextElement, title: SVGTitleElement, line: Line}} Drawn */

const INTERVAL = 1000;
// Ports that a box names.
const MAX_PORTS = 2;
// Pixels of a box beside its texts, and of a character: longer addresses are written smaller and
// in several lines, because they are never cut.
const [BESIDE_TEXTS, CHARACTER] = [30, 7.4];
// A line is to be hit more easily than it is wide.
const MIN_HIT = 12;

/** Who calls whom. */
export class MapView {
  element = element("section", "map-view");
  #onFilter;
  #model = new MapModel();
  #throttle = new Throttle(INTERVAL, () => this.#update());
  #scroll = element("div", "map-scroll");
  #canvas = element("div", "map-canvas");
  #svg = svg("svg");
  #paths = svg("g");
  // Above all paths.
  #texts = svg("g");
  #summary = element("p", "map-summary");
  #empty = element("p", "map-empty", "No connections.");
  #list;
  /** @type {Map<string, HTMLButtonElement>} */
  #boxes = new Map();
  /** @type {Map<string, Drawn>} */
  #lines = new Map();
  /** @type {HTMLElement[]} */
  #titles = [];
  /** What was rendered last. @type {Model | null} */
  #rendered = null;
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
    if (this.#rendered !== null) this.#throttle.now();
  }

  /** Hide the view. */
  hide() {
    this.element.hidden = true;
    this.#throttle.cancel();
  }

  /** Show the rows of the model: at most once a second. @param {Model} model */
  render(model) {
    this.#rendered = model;
    if (!this.element.hidden) this.#throttle.request();
  }

  /** @param {"unix" | "all"} name @param {string} text */
  #choice(name, text) {
    const label = element("label", "map-choice");
    const box = element("input");
    box.type = "checkbox";
    box.addEventListener("change", () => {
      this.#options[name] = box.checked;
      this.#throttle.now();
    });
    label.append(box, text);
    return label;
  }

  #update() {
    if (this.#rendered === null) return;
    const { state, peers } = this.#rendered;
    const rows = [...state.rows.values()];
    this.#picture = this.#model.update(rows, peers ?? new Peers(rows), performance.now(), this.#options);
    const { processes, edges } = this.#picture;
    const total = edges.reduce((sum, edge) => sum + edge.count, 0);
    setText(this.#summary, `${counted(total, "connection")} of ${counted(processes, "process")}`);
    this.#empty.hidden = edges.length > 0;
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
      setText(title, layout.titles[index].title);
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

  /** @param {Box} box @param {number} width */
  #drawBox({ node, x, y }, width) {
    let button = this.#boxes.get(node.id);
    if (button === undefined) {
      button = element("button", "map-box");
      button.type = "button";
      button.dataset.id = node.id;
      for (const parts of [["label", "count"], ["note", "extra"]]) {
        const row = element("span", "map-row");
        row.append(...parts.map((part) => element("span", `map-${part}`)));
        button.append(row);
      }
      this.#boxes.set(node.id, button);
      this.#canvas.append(button);
    }
    button.style.cssText = `width:${width}px;height:${BOX_HEIGHT}px;transform:translate(${x}px,${y}px)`;
    const [label, connections, note, extra] = button.querySelectorAll(".map-row > span");
    const listens = node.listens.slice(0, MAX_PORTS).map((port) => `:${port}`);
    if (node.listens.length > MAX_PORTS) listens.push(`+${node.listens.length - MAX_PORTS}`);
    const bad = node.closeWait ? `${count(node.closeWait)} CLOSE_WAIT` : "";
    setText(label, node.label);
    setText(connections, node.count ? count(node.count) : "");
    setText(note, node.gone ? "ended" : node.note);
    setText(extra, bad || listens.join(" "));
    const characters = node.label.length + count(node.count).length;
    const isLong = characters * CHARACTER > width - BESIDE_TEXTS;
    button.className = `map-box is-${node.side}${bad ? " is-bad" : ""}${node.gone ? " is-gone" : ""}` +
      `${node.folded ? " is-others" : ""}${isLong ? " is-long" : ""}`;
    button.tabIndex = node.id === this.#current ? 0 : -1;
    const parts = [node.label, node.note, node.gone ? "ended" : counted(node.count, "connection"),
      listens.length ? `listens on ${listens.join(" ")}` : "", bad];
    const text = parts.filter(Boolean).join(", ");
    button.setAttribute("aria-label", text);
    button.title = text;
    if (node.words.length) button.removeAttribute("aria-disabled");
    else button.setAttribute("aria-disabled", "true");
  }

  /** @param {Line} line */
  #drawLine(line) {
    let drawn = this.#lines.get(line.edge.id);
    if (drawn === undefined) {
      drawn = {
        group: svg("g"), hit: svg("path"), path: svg("path"), wait: svg("path"),
        text: svg("text"), title: svg("title"), line,
      };
      drawn.hit.setAttribute("class", "map-hit");
      drawn.path.setAttribute("class", "map-path");
      drawn.wait.setAttribute("class", "map-wait");
      drawn.group.dataset.id = line.edge.id;
      drawn.group.append(drawn.title, drawn.hit, drawn.path, drawn.wait);
      this.#lines.set(line.edge.id, drawn);
      this.#paths.append(drawn.group);
      this.#texts.append(drawn.text);
    }
    drawn.line = line;
    const { group, hit, path, wait, text, title } = drawn;
    const { edge, width } = line;
    group.setAttribute("class", `map-line${edge.closeWait ? " is-bad" : ""}` +
      `${edge.dashed ? " is-dashed" : ""}${edge.words.length ? " has-filter" : ""}`);
    for (const each of [hit, path]) each.setAttribute("d", line.path);
    wait.setAttribute("d", edge.closeWait ? line.path : "");
    wait.style.strokeWidth = `${line.waitWidth}px`;
    hit.style.strokeWidth = `${Math.max(MIN_HIT, width)}px`;
    path.style.strokeWidth = `${width}px`;
    path.setAttribute("marker-end",
      line.arrow ? `url(#map-arrow${edge.closeWait ? "-bad" : ""})` : "none");
    text.setAttribute("x", line.x.toFixed(1));
    text.setAttribute("y", line.y.toFixed(1));
    text.setAttribute("class", `${line.text ? "" : "is-quiet"}${edge.closeWait ? " is-bad" : ""}`);
    setText(text, line.text || count(edge.count));
    const [from, to] = [edge.from, edge.to].map((id) => this.#places.get(id)?.node.label ?? "?");
    setText(title, `${from} → ${to}: ${edgeText(edge)}`);
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
