import assert from "node:assert/strict";
import { test } from "node:test";

import { Line } from "../../agent/publish/page/line.js";
import { Model } from "../../agent/publish/page/model.js";
import { at, end, hello, lost, tcp } from "./make.js";

const ms = (second) => Date.parse(at(second));
const FIRST = [hello(1), tcp("snapshot", 1, 7, 1, { state: "CLOSE_WAIT" }), end(1, 1)];

test("records reach the rows, the log, the rates and the line", () => {
  const model = new Model(false);
  const line = new Line(ms(0));
  line.pause();
  model.take([...FIRST, tcp("open", 2, 7, 2), tcp("close", 3, 7, 2)], line, ms(3));
  model.tick(ms(4), false);
  assert.equal(model.state.rows.size, 1);
  assert.equal(model.log.length, 4);
  assert.deepEqual(model.rates.series(ms(5)).opens.slice(-3), [1, 0, 0]);
  assert.deepEqual(model.rates.series(ms(5)).closes.slice(-3), [0, 1, 0]);
  assert.equal(model.rates.series(ms(5)).closeWait.at(-1), 1);
  assert.equal(line.state(ms(3)).behind, 4);
});

test("lost and cut off are gaps of the rates", () => {
  const model = new Model(false);
  const line = new Line(ms(0));
  model.take([...FIRST, lost(4, 2, 4)], line, ms(4));
  model.tick(ms(5), true);
  assert.deepEqual(model.rates.series(ms(7)).opens.slice(-3), [null, null, 0]);
  assert.equal(line.state(ms(4)).notice, "lost 2–4");
});

test("the time is that of the agent, whose clock may differ", () => {
  const model = new Model(false);
  const line = new Line(0);
  assert.equal(model.now(5000), 5000);
  model.take([tcp("open", 1, 7, 1)], line, ms(1) + 3_600_900);
  model.take([tcp("open", 2, 7, 2)], line, ms(2) + 3_600_100);
  model.take([tcp("open", 3, 7, 3)], line, ms(3) + 3_600_500);
  assert.equal(model.now(ms(9) + 3_600_100), ms(9));
});

test("the time of a replay is just after its end", () => {
  const model = new Model(true);
  const line = new Line(0);
  line.replay("x.ndjson");
  assert.equal(model.now(7), 7);
  model.take([...FIRST, hello(9)], line, ms(99));
  assert.equal(model.now(ms(500)), ms(9) + 1000);
  assert.equal(line.state(ms(99)).kind, "replay");
  assert.equal(line.state(ms(99)).notice, "");
});

test("the other ends are found when rows have changed, once a second at most", () => {
  const model = new Model(false);
  const line = new Line(0);
  model.take(FIRST, line, 0);
  assert.ok(!model.join(() => 100));
  const { peers } = model;
  model.join(() => 5000);
  assert.equal(model.peers, peers);
  model.take([tcp("open", 2, 7, 2)], line, 0);
  model.join(() => 1099);
  assert.equal(model.peers, peers);
  model.join(() => 1100);
  assert.notEqual(model.peers, peers);
});

test("the other ends are found at once when the rows have doubled", () => {
  const model = new Model(false);
  const line = new Line(0);
  model.take(FIRST, line, 0);
  model.join(() => 100);
  const { peers } = model;
  const { size } = model.state.rows;
  const more = Array.from({ length: size + 1 }, (_, index) => tcp("open", 2 + index, 7, 50 + index));
  model.take(more.slice(1), line, 0);
  model.join(() => 101);
  assert.equal(model.peers, peers);
  model.take(more.slice(0, 1), line, 0);
  model.join(() => 102);
  assert.notEqual(model.peers, peers);
});

test("many other ends are found in slices", () => {
  const model = new Model(false);
  const row = (inode, one, other) => tcp("open", inode, 7, inode, {
    local_addr: "10.0.0.1", local_port: one, remote_addr: "10.0.0.1", remote_port: other,
  });
  const records = [];
  for (let port = 1; port <= 4000; port += 2) {
    records.push(row(port, port, port + 1), row(port + 1, port + 1, port));
  }
  model.take(records, new Line(0), 0);
  let time = 0;
  let slices = 1;
  while (model.join(() => (time += 2))) slices += 1;
  assert.ok(slices > 3, `${slices}`);
  const [first, second] = model.state.rows.values();
  assert.equal(model.peers.of(first).row, second);
});

test("only what was filtered is not everything", () => {
  assert.ok(new Model(false).isEverything);
  assert.ok(!new Model(false, "nginx").isEverything);
  assert.ok(new Model(true).isEverything);
});

test("a recording that ends within its snapshot is shown as far as it goes, and says so", () => {
  const model = new Model(true);
  model.take([hello(1), tcp("snapshot", 1, 7, 1), tcp("snapshot", 1, 7, 2)], new Line(0), 0);
  model.join(() => 100);
  assert.deepEqual([...model.joinedHosts], []);
  assert.deepEqual(model.end(), ["it ends within a snapshot of web1: the rows known so far are shown"]);
  assert.ok(!model.join(() => 101));
  assert.deepEqual([...model.joinedHosts], ["web1"]);
  assert.equal(model.state.rows.size, 2);
  // Within a later snapshot, too.
  const later = new Model(true);
  later.take([...FIRST, lost(4, 2, 4), tcp("snapshot", 4, 7, 2)], new Line(0), 0);
  assert.match(later.end()[0], /within a snapshot of web1/);
});

test("what is said of a recording that is whole, of one that holds nothing, and of bad lines", () => {
  const ended = (records, bad) => {
    const model = new Model(true);
    model.take(records, new Line(0), 0);
    model.bad = bad;
    return model.end();
  };
  assert.deepEqual(ended(FIRST, 0), []);
  assert.deepEqual(ended([tcp("snapshot", 1, 7, 1)], 0), []); // A single snapshot has no end.
  assert.deepEqual(ended(FIRST, 1), ["1 line is no record"]);
  assert.deepEqual(ended(FIRST, 1234), ["1,234 lines are no records"]);
  assert.deepEqual(ended([], 2), ["it holds no record", "2 lines are no records"]);
});

test("the other ends are found at once when a snapshot has ended, and count from then on", () => {
  const model = new Model(false);
  const line = new Line(0);
  model.take([hello(1), tcp("snapshot", 1, 7, 1), tcp("snapshot", 1, 7, 2)], line, 0);
  model.join(() => 100);
  assert.deepEqual([...model.joinedHosts], []);
  model.take([tcp("snapshot", 1, 7, 3), end(1, 3)], line, 0);
  const { peers } = model;
  model.join(() => 101);
  assert.notEqual(model.peers, peers);
  assert.deepEqual([...model.joinedHosts], ["web1"]);
});

test("the other ends of an empty snapshot are known too", () => {
  const model = new Model(false);
  model.take([hello(1)], new Line(0), 0);
  model.join(() => 100);
  model.take([end(1, 0)], new Line(0), 0);
  model.join(() => 101);
  assert.deepEqual([...model.joinedHosts], ["web1"]);
});
