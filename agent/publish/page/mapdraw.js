// The boxes and lines of the map in the document. Only what differs is written.

import { element, setText } from "./lines.js";
import { edgeText } from "./map.js";
import { BOX_HEIGHT } from "./maplayout.js";
import { svg } from "./mapparts.js";
import { count, counted } from "./text.js";

/** @typedef {import("./maplayout.js").Box} Box */
/** @typedef {import("./maplayout.js").Line} Line */
/** @typedef {{group: SVGGElement, hit: SVGPathElement, path: SVGPathElement, wait: SVGPathElement, text: SVGTextElement, title: SVGTitleElement, line: Line}} Drawn */

// Ports that a box names.
const MAX_PORTS = 2;
// Pixels of a box beside its texts, and of a character: longer addresses are written smaller and
// in several lines, because they are never cut.
const [BESIDE_TEXTS, CHARACTER] = [32, 8.4];
// A line is to be hit more easily than it is wide.
const MIN_HIT = 12;

/** Write an attribute where it differs.
 * @param {Element} target @param {string} name @param {string} value */
function setAttribute(target, name, value) {
  if (target.getAttribute(name) !== value) target.setAttribute(name, value);
}

/** Return the button of a node. @param {string} id */
export function makeBox(id) {
  const button = element("button", "map-box");
  button.type = "button";
  button.dataset.id = id;
  for (const parts of [["label", "count"], ["note", "extra"]]) {
    const row = element("span", "map-row");
    row.append(...parts.map((part) => element("span", `map-${part}`)));
    button.append(row);
  }
  return button;
}

/**
 * Write a node into its button.
 * @param {HTMLButtonElement} button
 * @param {Box} box
 * @param {number} width
 * @param {boolean} isSilent whether nothing of its host comes
 */
export function writeBox(button, { node, x, y }, width, isSilent) {
  button.style.width = `${width}px`;
  button.style.height = `${BOX_HEIGHT}px`;
  button.style.transform = `translate(${x}px, ${y}px)`;
  const [label, connections, note, extra] = button.querySelectorAll(".map-row > span");
  const ports = node.listens.slice(0, MAX_PORTS).map((port) => `:${port}`);
  if (node.listens.length > MAX_PORTS) ports.push(`+${node.listens.length - MAX_PORTS}`);
  const listens = ports.join(" ");
  const bad = node.closeWait ? `${count(node.closeWait)} CLOSE_WAIT` : "";
  setText(label, node.label);
  setText(connections, node.count ? count(node.count) : "");
  setText(note, node.gone ? "ended" : node.note);
  setText(extra, bad || listens);
  const characters = node.label.length + count(node.count).length;
  const classes = {
    [`is-${node.side}`]: true, "is-bad": bad !== "", "is-gone": node.gone,
    "is-silent": isSilent,
    "is-others": node.folded > 0, "is-long": characters * CHARACTER > width - BESIDE_TEXTS,
  };
  for (const [name, isOn] of Object.entries(classes)) button.classList.toggle(name, isOn);
  const parts = [
    node.label, node.note, node.gone ? "ended" : counted(node.count, "connection"),
    listens && `listens on ${listens}`, bad, isSilent && "the host is silent",
  ];
  const text = parts.filter(Boolean).join(", ");
  setAttribute(button, "aria-label", text);
  setAttribute(button, "title", text);
  setAttribute(button, "aria-disabled", String(node.words.length === 0));
}

/** Return the elements of a line. @param {Line} line @returns {Drawn} */
export function makeLine(line) {
  const [hit, path, wait] = ["map-hit", "map-path", "map-wait"].map((name) => {
    const made = svg("path");
    made.setAttribute("class", name);
    return made;
  });
  const [group, title] = [svg("g"), svg("title")];
  group.setAttribute("class", "map-line");
  group.dataset.id = line.edge.id;
  group.append(title, hit, path, wait);
  return { group, hit, path, wait, text: svg("text"), title, line };
}

/**
 * Write an edge into its line.
 * @param {Drawn} drawn
 * @param {Line} line
 * @param {string} ends
 */
export function writeLine(drawn, line, ends) {
  drawn.line = line;
  const { group, hit, path, wait, text, title } = drawn;
  const { edge, width } = line;
  const isBad = edge.closeWait > 0;
  group.classList.toggle("is-bad", isBad);
  group.classList.toggle("is-dashed", edge.dashed);
  group.classList.toggle("has-filter", edge.words.length > 0);
  setAttribute(hit, "d", line.path);
  setAttribute(path, "d", line.path);
  setAttribute(wait, "d", isBad ? line.path : "");
  hit.style.strokeWidth = `${Math.max(MIN_HIT, width)}px`;
  path.style.strokeWidth = `${width}px`;
  wait.style.strokeWidth = `${line.waitWidth}px`;
  const arrow = isBad ? "url(#map-arrow-bad)" : "url(#map-arrow)";
  setAttribute(path, "marker-end", line.arrow ? arrow : "none");
  setAttribute(text, "x", line.x.toFixed(1));
  setAttribute(text, "y", line.y.toFixed(1));
  text.classList.toggle("is-quiet", !line.text);
  text.classList.toggle("is-bad", isBad);
  setText(text, line.text || count(edge.count));
  setText(title, `${ends}: ${edgeText(edge)}`);
}
