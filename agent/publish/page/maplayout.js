// Where the boxes and lines of the map are. Pure.

import { count } from "./text.js";

/** @typedef {import("./map.js").MapPicture} MapPicture */
/** @typedef {import("./map.js").MapNode} MapNode */
/** @typedef {import("./map.js").MapEdge} MapEdge */
/** @typedef {{node: MapNode, column: number, x: number, y: number}} Box */
/** A line and its text, which is empty where the numbers in the boxes suffice. */
/** @typedef {{edge: MapEdge, path: string, width: number, waitWidth: number, text: string, arrow: boolean, x: number, y: number}} Line */
/**
 * @typedef {object} Layout
 * @property {number} width
 * @property {number} height
 * @property {number} boxWidth
 * @property {{x: number, title: string}[]} titles
 * @property {Box[]} boxes
 * @property {Line[]} lines with the place of the middle of their text
 */

export const BOX_HEIGHT = 40;
const GAP = 11;
export const TITLE_HEIGHT = 30;
const STEP = BOX_HEIGHT + GAP;
const [MIN_BOX, MAX_BOX] = [156, 250];
const [MIN_GUTTER, MAX_GUTTER] = [56, 260];
// The width of the space between columns, in widths of a box.
const GUTTER = 0.6;
// Space at the sides for the focus ring.
const MARGIN = 4;
// Ends of lines keep so far from the corners of a box.
const CORNER = 8;
// Texts of lines are at least so far apart. With more of them, only the greatest numbers are shown.
const [TEXT_STEP, TEXT_WIDTH] = [15, 46];
const MAX_TEXTS = 12;
const [MIN_LINE, MAX_LINE] = [1, 9];
// More heads of arrows at one side of a box would hide each other.
const MAX_ARROWS = 6;
// Texts are so far above the middle of their line.
const TEXT_RISE = 8;

/**
 * Return where everything is. It is wider than the width given where the columns do not fit.
 * @param {MapPicture} picture
 * @param {number} width
 * @returns {Layout}
 */
export function layOut(picture, width) {
  const { columns } = picture;
  const room = width - 2 * MARGIN;
  const gutters = columns.length - 1;
  const boxWidth = clamp(room / (columns.length + gutters * GUTTER), MIN_BOX, MAX_BOX);
  const gutter = clamp((room - boxWidth * columns.length) / gutters, MIN_GUTTER, MAX_GUTTER);
  /** @type {Map<string, Box>} */
  const boxes = new Map();
  columns.forEach(({ nodes }, column) => nodes.forEach((node, slot) => boxes.set(node.id, {
    node, column, x: MARGIN + column * (boxWidth + gutter), y: TITLE_HEIGHT + slot * STEP,
  })));
  const longest = Math.max(1, ...columns.map(({ nodes }) => nodes.length));
  const frame = {
    boxWidth, gutter, bottoms: columns.map(({ nodes }) => TITLE_HEIGHT + nodes.length * STEP - GAP),
  };
  return {
    width: 2 * MARGIN + columns.length * boxWidth + gutters * gutter,
    height: TITLE_HEIGHT + longest * STEP, boxWidth,
    titles: columns.map(({ title }, column) => ({ title, x: MARGIN + column * (boxWidth + gutter) })),
    boxes: [...boxes.values()], lines: lines(picture.edges, boxes, frame),
  };
}

/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** The width of a line, which grows with the logarithm of its connections. @param {number} count */
const lineWidth = (count) => clamp(1.3 + Math.log2(Math.max(1, count)) * 0.7, MIN_LINE, MAX_LINE);

/** @typedef {{boxWidth: number, gutter: number, bottoms: number[]}} Frame */
/** One end of a line: the side of its box, where along it, and how many are there. */
/** @typedef {{box: Box, right: boolean, other: Box, y: number, width: number, ends: number}} End */

/** @param {MapEdge[]} edges @param {Map<string, Box>} boxes @param {Frame} frame @returns {Line[]} */
function lines(edges, boxes, frame) {
  /** @type {{edge: MapEdge, from: End, to: End}[]} */
  const drawn = [];
  /** @type {Map<string, End[]>} */
  const sides = new Map();
  /** @param {Box} box @param {Box} other @param {boolean} right @param {MapEdge} edge */
  const end = (box, other, right, edge) => {
    const made = { box, right, other, y: 0, width: lineWidth(edge.count), ends: 0 };
    const key = `${box.node.id}\0${right}`;
    const list = sides.get(key);
    if (list === undefined) sides.set(key, [made]);
    else list.push(made);
    return made;
  };
  for (const edge of edges) {
    const from = boxes.get(edge.from);
    const to = boxes.get(edge.to);
    if (from === undefined || to === undefined) continue;
    drawn.push({
      edge, from: end(from, to, from.column <= to.column, edge),
      to: end(to, from, to.column <= from.column, edge),
    });
  }
  // All lines are made thinner until those at the busiest side of a box fit.
  const most = Math.max(...[...sides.values()].map(spread));
  const scale = Math.min(1, (BOX_HEIGHT - CORNER) / most);
  const made = drawn.map(({ edge, from, to }) => line(edge, from, to, frame, scale));
  separate(made);
  return made;
}

/** Put the ends at one side of a box in the order of what they lead to. Return their width.
 * @param {End[]} ends */
function spread(ends) {
  ends.sort((one, two) => one.other.y - two.other.y || one.other.x - two.other.x);
  const total = ends.reduce((sum, { width }) => sum + width, 0);
  const space = Math.min(BOX_HEIGHT - 2 * CORNER, total + 4 * (ends.length - 1));
  let passed = 0;
  for (const end of ends) {
    end.y = end.box.y + BOX_HEIGHT / 2 + ((passed + end.width / 2) / total - 0.5) * space;
    end.ends = ends.length;
    passed += end.width;
  }
  return total;
}

/** @param {MapEdge} edge @param {End} from @param {End} to @param {Frame} frame
 * @param {number} scale @returns {Line} */
function line(edge, from, to, frame, scale) {
  const width = Math.max(MIN_LINE, from.width * scale);
  const waitWidth = edge.closeWait ? Math.max(MIN_LINE, lineWidth(edge.closeWait) * scale) : 0;
  const arrow = to.ends <= MAX_ARROWS;
  const isInner = from.box.node.side === "here" && to.box.node.side === "here";
  const numbers = [
    isInner && edge.count > 1 ? count(edge.count) : "",
    edge.closeWait ? `${count(edge.closeWait)} CW` : "",
  ];
  const text = numbers.filter(Boolean).join(", ");
  const x1 = from.box.x + (from.right ? frame.boxWidth : 0);
  const x2 = to.box.x + (to.right ? frame.boxWidth : 0);
  if (from.box.column === to.box.column) {
    const bend = Math.min(frame.gutter * 0.8, 26 + Math.abs(to.y - from.y) / 5);
    const path = `M${at(x1, from.y)}C${at(x1 + bend, from.y)} ${at(x2 + bend, to.y)} ${at(x2, to.y)}`;
    const x = x1 + bend * (from.box === to.box ? 1.5 : 0.75);
    return { edge, path, width, waitWidth, text, arrow, x, y: (from.y + to.y) / 2 };
  }
  const step = from.box.column < to.box.column ? 1 : -1;
  let path = `M${at(x1, from.y)}`;
  let [x, y] = [x1, from.y];
  /** @param {number} nextX @param {number} nextY */
  const curve = (nextX, nextY) => {
    const half = (x + nextX) / 2;
    path += `C${at(half, y)} ${at(half, nextY)} ${at(nextX, nextY)}`;
    [x, y] = [nextX, nextY];
  };
  const span = Math.abs(to.box.column - from.box.column);
  for (let passed = 1; passed < span; passed += 1) {
    // Columns between are passed through the gap that is nearest.
    const column = from.box.column + passed * step;
    const gap = nearestGap(from.y + ((to.y - from.y) * passed) / span, frame.bottoms[column]);
    const left = MARGIN + column * (frame.boxWidth + frame.gutter);
    curve(step > 0 ? left : left + frame.boxWidth, gap);
    x = step > 0 ? left + frame.boxWidth : left;
    path += `H${x.toFixed(1)}`;
  }
  const middle = { x: (x + x2) / 2, y: (y + to.y) / 2 - width / 2 - TEXT_RISE };
  curve(x2, to.y);
  return { edge, path, width, waitWidth, text, arrow, ...middle };
}

/** @param {number} x @param {number} y */
const at = (x, y) => `${x.toFixed(1)},${y.toFixed(1)}`;

/** @param {number} y @param {number} bottom */
function nearestGap(y, bottom) {
  if (y > bottom + GAP / 2) return y;
  const slot = Math.max(1, Math.round((y - TITLE_HEIGHT + GAP / 2) / STEP));
  return Math.min(TITLE_HEIGHT + slot * STEP - GAP / 2, bottom + GAP / 2);
}

/** Choose the texts that are shown, and move those apart that overlap. @param {Line[]} made */
function separate(made) {
  const texts = made.filter((line) => line.text);
  texts.sort(({ edge: one }, { edge: two }) =>
    two.closeWait - one.closeWait || two.count - one.count);
  for (const line of texts.splice(MAX_TEXTS)) line.text = "";
  texts.sort((one, two) => one.y - two.y);
  texts.forEach((line, index) => {
    for (const above of texts.slice(0, index)) {
      if (Math.abs(above.x - line.x) < TEXT_WIDTH && line.y < above.y + TEXT_STEP) {
        line.y = above.y + TEXT_STEP;
      }
    }
  });
}

/**
 * Return the box to which an arrow key leads; null for other keys.
 * @param {Box} here
 * @param {Box[]} boxes
 * @param {string} key
 */
export function neighbour(here, boxes, key) {
  const down = key === "ArrowDown" ? 1 : key === "ArrowUp" ? -1 : 0;
  const right = key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0;
  if (!down && !right) return null;
  const candidates = boxes.filter((box) => down
    ? box.column === here.column && (box.y - here.y) * down > 0
    : (box.column - here.column) * right > 0);
  /** @param {Box} box */
  const distance = (box) => Math.abs(box.column - here.column) * 1e6 + Math.abs(box.y - here.y);
  return candidates.sort((one, other) => distance(one) - distance(other))[0] ?? here;
}
