import assert from "node:assert/strict";
import { test } from "node:test";

import { pathOf } from "../../agent/publish/page/sparkline.js";

test("the line goes from the oldest value to the newest, the greatest at the top", () => {
  assert.equal(pathOf([0, 5, 10]), "M1.0 15.0L30.0 8.0L59.0 1.0");
});

test("a gap ends the line, and a value between gaps is a dot", () => {
  assert.equal(pathOf([4, 4, null, 4, null]), "M1.0 1.0L15.5 1.0M44.5 1.0h0");
});

test("nothing is drawn without values, and zeros lie at the bottom", () => {
  assert.equal(pathOf([]), "");
  assert.equal(pathOf([null, null]), "");
  assert.equal(pathOf([0, 0]), "M1.0 15.0L59.0 15.0");
  assert.equal(pathOf([7]), "M1.0 1.0h0");
});
