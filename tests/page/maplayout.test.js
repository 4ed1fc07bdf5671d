import assert from "node:assert/strict";
import { test } from "node:test";

import { BOX_HEIGHT, layOut, neighbour } from "../../agent/publish/page/maplayout.js";

/** @param {string} id @param {string} side @returns {any} */
const node = (id, side) => ({ id, side, label: id, note: "", count: 1, words: [] });
/** @param {string} from @param {string} to @param {object} [more] @returns {any} */
const edge = (from, to, more = {}) =>
  ({ id: `${from} ${to}`, from, to, count: 1, closeWait: 0, dashed: false, words: [], ...more });
/** @param {any[]} edges @param {number} [called] @returns {any} */
const picture = (edges, called = 1) => ({
  edges, processes: 1,
  columns: [
    { id: "callers", side: "callers", title: "who calls", nodes: [node("a", "callers")] },
    { id: "web1", side: "here", title: "web1", nodes: [node("b", "here"), node("c", "here")] },
    {
      id: "callees", side: "callees", title: "what they call",
      nodes: Array.from({ length: called }, (_, at) => node(`d${at}`, "callees")),
    },
  ],
});

/** The numbers of a path. @param {string} path */
const numbers = (path) => [...path.matchAll(/-?[\d.]+/g)].map(([text]) => Number(text));

test("boxes of a column are below each other and do not overlap", () => {
  const { boxes, width, boxWidth } = layOut(picture([], 5), 1000);
  for (const one of boxes) {
    for (const two of boxes) {
      if (one === two) continue;
      const apart = Math.abs(one.y - two.y) >= BOX_HEIGHT || Math.abs(one.x - two.x) > boxWidth;
      assert.ok(apart, `${one.node.id} ${two.node.id}`);
    }
  }
  assert.ok(width <= 1000);
});

test("a narrow screen is exceeded rather than boxes made too small", () => {
  const { width, boxWidth } = layOut(picture([]), 300);
  assert.ok(width > 300 && boxWidth >= 150);
});

test("a line leads from the right of the caller to the left of the called", () => {
  const { lines: [line], boxes, boxWidth } = layOut(picture([edge("a", "b")]), 1000);
  const path = numbers(line.path);
  assert.ok(Math.abs(path[0] - boxes[0].x - boxWidth) < 0.1);
  assert.ok(Math.abs(path[path.length - 2] - boxes[1].x) < 0.1);
});

test("a line past a column goes through the gaps between its boxes", () => {
  const { lines: [line], boxes } = layOut(picture([edge("a", "d0")]), 1000);
  const y = Number(/H[\d.]+C[\d.]+,([\d.]+)/.exec(line.path)?.[1]);
  for (const box of boxes.filter(({ column }) => column === 1)) {
    assert.ok(y < box.y || y > box.y + BOX_HEIGHT);
  }
});

test("lines are wider for more connections, and all fit at the side of a box", () => {
  const few = layOut(picture([edge("a", "b"), edge("a", "c", { count: 900 })]), 1000).lines;
  assert.ok(few[1].width > few[0].width);
  const edges = Array.from({ length: 30 }, (_, at) => edge("b", `d${at}`, { count: 9000 }));
  const many = layOut(picture(edges, 30), 1000).lines;
  const starts = many.map(({ path }) => numbers(path)[1]);
  assert.ok(many.reduce((sum, line) => sum + line.width, 0) <= BOX_HEIGHT);
  assert.ok(Math.max(...starts) - Math.min(...starts) <= BOX_HEIGHT);
  assert.deepEqual(starts, [...starts].sort((one, two) => one - two));
});

test("numbers are beside lines within the host and where sockets are in CLOSE_WAIT", () => {
  const { lines } = layOut(picture([
    edge("a", "b", { count: 5 }), edge("b", "c", { count: 60, closeWait: 13 }),
    edge("a", "c", { closeWait: 2 }),
  ]), 1000);
  assert.deepEqual(lines.map(({ text }) => text), ["", "60, 13 CW", "2 CW"]);
});

test("texts do not cover each other, and only the greatest are shown when there are many", () => {
  const edges = Array.from({ length: 40 }, (_, at) => edge("b", `d${at % 2}`, { id: `${at}`, closeWait: at + 1 }));
  const shown = layOut(picture(edges, 2), 1000).lines.filter(({ text }) => text);
  assert.ok(shown.length < 20 && shown.some(({ text }) => text === "40 CW"));
  for (const one of shown) {
    for (const two of shown) {
      assert.ok(one === two || Math.abs(one.x - two.x) > 40 || Math.abs(one.y - two.y) >= 12);
    }
  }
});

test("arrow keys lead to the nearest box in their direction", () => {
  const { boxes } = layOut(picture([], 3), 1000);
  const [a, b, c, d] = boxes;
  assert.equal(neighbour(a, boxes, "ArrowRight"), b);
  assert.equal(neighbour(b, boxes, "ArrowDown"), c);
  assert.equal(neighbour(c, boxes, "ArrowUp"), b);
  assert.equal(neighbour(d, boxes, "ArrowLeft"), b);
  assert.equal(neighbour(a, boxes, "ArrowLeft"), a);
  assert.equal(neighbour(a, boxes, "x"), null);
});
