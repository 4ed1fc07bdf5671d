import assert from "node:assert/strict";
import { test } from "node:test";

import { MAX_HEIGHT, ROW_HEIGHT, Viewport } from "../../agent/publish/page/viewport.js";

function viewport(rows, visible = 10) {
  const view = new Viewport();
  view.rows = rows;
  view.height = visible * ROW_HEIGHT;
  return view;
}

/** The rows that the pool shows of those in view. */
function covered(view, scrollTop) {
  const first = view.first(scrollTop);
  const seen = Math.floor(view.top(scrollTop) / ROW_HEIGHT);
  return [seen - first, first + view.poolSize - Math.min(view.rows, seen + 11)];
}

test("the pool covers the view wherever it is", () => {
  for (const rows of [0, 1, 5, 11, 30, 20_000, 100_000, 2_000_000]) {
    const view = viewport(rows);
    const end = Math.max(0, view.scrollHeight - view.height);
    for (const scrollTop of [0, 1, end / 3, end / 2, end - 1, end]) {
      if (scrollTop < 0) continue;
      const [before, after] = covered(view, scrollTop);
      assert.ok(before >= 0 && after >= 0, `${rows} rows at ${scrollTop}`);
    }
  }
});

test("the end of the scroll bar is the end of the rows, however many there are", () => {
  for (const rows of [20_000, 100_000, 2_000_000]) {
    const view = viewport(rows);
    assert.ok(view.scrollHeight <= MAX_HEIGHT);
    const end = view.top(view.scrollHeight - view.height) + view.height;
    assert.equal(Math.round(end), rows * ROW_HEIGHT);
  }
});

test("places are scrolled to exactly, and not beyond the ends", () => {
  for (const rows of [100, 2_000_000]) {
    const view = viewport(rows);
    assert.ok(Math.abs(view.top(view.scrollTo(1200)) - 1200) < 1e-6);
    assert.equal(view.scrollTo(-5), 0);
    assert.ok(view.scrollTo(1e9) <= view.scrollHeight - view.height + 1e-6);
  }
});

test("a row is brought into view, no further than needed", () => {
  const view = viewport(100);
  assert.equal(view.reveal(9, 0), 0);
  assert.equal(view.reveal(10, 0), ROW_HEIGHT);
  assert.equal(view.reveal(3, 10 * ROW_HEIGHT), 3 * ROW_HEIGHT);
});

test("without a height nothing is shown", () => {
  assert.equal(viewport(100, 0).poolSize, 0);
  assert.equal(viewport(100, 0).distance("PageDown"), 1);
});

test("keys go on by a row, a page, or to the ends", () => {
  const keys = ["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Home", "End", "a"];
  const distances = keys.map((key) => viewport(100, 10).distance(key));
  assert.deepEqual(distances, [1, -1, 9, -9, -Infinity, Infinity, 0]);
});
