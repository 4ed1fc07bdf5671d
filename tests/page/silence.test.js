import assert from "node:assert/strict";
import { test } from "node:test";

import { Line } from "../../agent/publish/page/line.js";
import { Model } from "../../agent/publish/page/model.js";
import { Silence, silenceText } from "../../agent/publish/page/silence.js";
import { head, hello } from "./make.js";

const NOW = new Date(2026, 10, 28, 12, 3, 4).getTime();
const beat = (host) => head("heartbeat", 1, host);

test("a host is silent when nothing of it came for 35 s while the line was live", () => {
  const silence = new Silence();
  silence.hear("web1", NOW);
  silence.hear("web2", NOW);
  silence.hear("web1", NOW + 30_000);
  assert.deepEqual([...silence.silent(NOW + 34_999, NOW)], []);
  assert.deepEqual([...silence.silent(NOW + 35_000, NOW)], [["web2", NOW]]);
  assert.deepEqual([...silence.silent(NOW + 35_000, null)], []);
  assert.deepEqual([...silence.silent(NOW + 35_000, NOW + 1)], []);
  silence.hear("web2", NOW + 35_001);
  assert.deepEqual([...silence.silent(NOW + 35_001, NOW)], []);
});

test("what is said of silent hosts", () => {
  assert.equal(silenceText(new Map()), "");
  assert.equal(silenceText(new Map([["web2", NOW]])), "web2: nothing since 12:03:04");
  assert.equal(
    silenceText(new Map([["a\u202e", NOW], ["b", NOW + 1000]])),
    "a\\x{202e}: nothing since 12:03:04; b: nothing since 12:03:05",
  );
  const many = new Map(["a", "b", "c", "d", "e"].map((host) => [host, NOW]));
  assert.match(silenceText(many), /c: nothing since 12:03:04; 2 more hosts silent$/);
});

/** Take heartbeats of hosts at some seconds, and return what is silent after each. */
function run(model, line, beats) {
  return beats.map(([second, ...hosts]) => {
    const now = NOW + second * 1000;
    if (hosts.length) model.take(hosts.map(beat), line, now);
    model.findSilent(line, now);
    return [...model.silent.keys()];
  });
}

test("a host of a relay falls silent, and is back with its next record", () => {
  const [model, line] = [new Model(false), new Line(NOW)];
  model.take([hello(1, { host: "web1" }), hello(1, { host: "web2" })], line, NOW);
  assert.deepEqual(
    run(model, line, [[15, "web1", "web2"], [30, "web1"], [45, "web1"], [60, "web1"]]),
    [[], [], [], ["web2"]],
  );
  assert.deepEqual([...model.silent], [["web2", NOW + 15_000]]);
  model.take([beat("web2")], line, NOW + 61_000);
  assert.deepEqual([...model.silent], []);
});

test("no host is silent while the line is stale or cut off, nor at once after that", () => {
  const [model, line] = [new Model(false), new Line(NOW)];
  model.take([hello(1, { host: "web1" }), hello(1, { host: "web2" })], line, NOW);
  assert.deepEqual(run(model, line, [[36], [40, "web1"], [55, "web1"], [74, "web1"]]), [[], [], [], []]);
  assert.deepEqual(run(model, line, [[75, "web1"]]), [["web2"]]);
  line.closed("", NOW + 76_000, 0);
  model.findSilent(line, NOW + 76_000);
  assert.equal(model.silent.size, 0);
  line.connecting();
  model.take([hello(1, { host: "web1", resumed: true })], line, NOW + 80_000);
  assert.deepEqual(run(model, line, [[100, "web1"], [114, "web1"], [115, "web1"]]), [[], [], ["web2"]]);
});

test("a stream that replaces one on which nothing came begins the time anew", () => {
  const [model, line] = [new Model(false), new Line(NOW)];
  model.take([hello(1, { host: "web1" }), hello(1, { host: "web2" })], line, NOW);
  line.connecting();
  model.take([hello(1, { host: "web1", resumed: true })], line, NOW + 70_000);
  assert.deepEqual(run(model, line, [[71, "web1"], [104, "web1"], [105, "web1"]]), [[], [], ["web2"]]);
});

test("no host of a recording is silent; while the page is paused one may be", () => {
  const replay = new Line(NOW);
  replay.replay("x.ndjson");
  assert.deepEqual(run(new Model(true), replay, [[0, "web1", "web2"], [40, "web1"]]), [[], []]);
  const [model, line] = [new Model(false), new Line(NOW)];
  model.take([hello(1, { host: "web1" }), hello(1, { host: "web2" })], line, NOW);
  line.pause();
  assert.deepEqual(run(model, line, [[20, "web1"], [40, "web1"]]), [[], ["web2"]]);
});
