import assert from "node:assert/strict";
import { test } from "node:test";

import { emptyText } from "../../agent/publish/page/empty.js";
import { Line } from "../../agent/publish/page/line.js";
import { Model } from "../../agent/publish/page/model.js";
import { end, hello, tcp } from "./make.js";

const made = (words, records, before) => {
  const model = new Model(false, words, before);
  model.take(records, new Line(0), 0);
  return model;
};
const text = (model, isPart = false) => {
  const { before, button, after } = emptyText(model, isPart);
  return before + button + after;
};
const NONE = [hello(1), end(1, 0)];

test("a filter that matches nothing, and how many sockets there were without it", () => {
  const all = made("", [hello(1), tcp("snapshot", 1, 7, 1), tcp("snapshot", 1, 7, 2), end(1, 2)]);
  const filtered = made("nginx", NONE, all);
  assert.equal(text(filtered), "No socket matches nginx. Clear the filter to see all 2.");
  assert.equal(emptyText(filtered, false).action, "clear");
  // It is still known after another filter.
  assert.match(text(made("a b", NONE, filtered)), /^No socket matches a b\. .* to see all 2\.$/);
  assert.match(text(made("nginx", NONE)), / to see all\.$/);
  assert.match(text(made("nginx", NONE, made("", NONE))), / to see all\.$/);
  assert.match(text(made("\u202e", NONE)), /^No socket matches \\x\{202e\}\. /);
});

test("only other sockets, or none", () => {
  const unix = made("", [hello(1), tcp("snapshot", 1, 7, 1, { family: "unix", proto: "unix" }), end(1, 1)]);
  assert.equal(
    text(unix, true), "No TCP, UDP or raw socket is open. Show unix and others to see all 1.",
  );
  assert.equal(text(made("", NONE), true), "No socket is open.");
});

test("nothing is said before the snapshots of all hosts are there, or the recording ends", () => {
  assert.equal(emptyText(made("nginx", []), false), null);
  assert.equal(emptyText(made("nginx", [hello(1)]), false), null);
  assert.equal(emptyText(made("nginx", [...NONE, hello(1, { host: "web2" })]), false), null);
  const replay = new Model(true);
  replay.take([hello(1)], new Line(0), 0);
  assert.equal(emptyText(replay, true), null);
  replay.end();
  assert.equal(text(replay, true), "No socket is open.");
});
