import assert from "node:assert/strict";
import { test } from "node:test";

import { EventLog } from "../../agent/publish/page/eventlog.js";
import { parseRecords } from "../../agent/publish/page/records.js";
import { recording } from "../../agent/publish/page/save.js";
import { State } from "../../agent/publish/page/state.js";
import { end, head, hello, lost, random, tcp } from "./make.js";

function folded(records) {
  const state = new State();
  const log = new EventLog();
  for (const one of records) {
    state.apply(one);
    log.push(one);
  }
  return { state, log };
}

const saved = (records) => {
  const { state, log } = folded(records);
  const { records: lines, bad } = parseRecords(recording(state, log).map((line) => line()).join(""));
  assert.equal(bad, 0);
  return lines;
};
const rows = (state) =>
  [...state.rows.values()].map(({ key, record }) => `${key} ${record.state}`).sort();

test("the state before the events, and the events", () => {
  const open = tcp("open", 2, 7, 2, { time_source: "poll" });
  const update = tcp("update", 3, 7, 1, { state: "CLOSE_WAIT", previous: { state: "ESTABLISHED" } });
  const close = tcp("close", 4, 7, 3, { reason: "closed", duration_ms: null });
  const first = [hello(1), tcp("snapshot", 1, 7, 1), tcp("snapshot", 1, 7, 3), end(1, 2)];
  const lines = saved([...first, open, update, close]);
  assert.deepEqual(lines.map((one) => [one.event, one.seq]), [
    ["hello", 1], ["snapshot", 1], ["snapshot", 1], ["snapshot_end", 1], ["open", 2], ["update", 3], ["close", 4],
  ]);
  assert.equal(lines[1].state, "ESTABLISHED");
  assert.ok(!("reason" in lines[2]) && !("previous" in lines[1]));
  assert.deepEqual(lines.slice(4), [open, update, close]);
});

test("events before a gap are left out", () => {
  const lines = saved([
    hello(1), end(1, 0), tcp("open", 2, 7, 1), lost(5, 3, 5), tcp("snapshot", 5, 7, 4), end(5, 1), tcp("open", 6, 7, 6),
  ]);
  assert.deepEqual(lines.map((one) => [one.event, one.seq]), [
    ["hello", 5], ["snapshot", 5], ["snapshot_end", 5], ["open", 6],
  ]);
});

test("a stream that resumed goes on, and the newest coverage is that of the beginning", () => {
  const lines = saved([
    hello(1), end(1, 0), tcp("open", 2, 7, 1), hello(3, { resumed: true }),
    { ...head("coverage", 3), ...hello(0), event: "coverage", seq: 3, processes: 99 }, tcp("open", 4, 7, 2),
  ]);
  assert.deepEqual(lines.map((one) => one.event), ["hello", "snapshot_end", "open", "coverage", "open"]);
  assert.deepEqual([lines[0].processes, lines[0].resumed], [99, false]);
});

test("a snapshot that has not ended is saved without events", () => {
  assert.deepEqual(
    saved([hello(1), tcp("snapshot", 1, 7, 1)]).map((one) => one.event), ["hello", "snapshot", "snapshot_end"],
  );
});

test("what was saved leads to the same state, and so do any records", () => {
  for (let seed = 0; seed < 200; seed += 1) {
    const next = random(seed);
    const records = [hello(1), hello(1, { host: "db1", epoch: "e2" }), end(1, 0), end(1, 0, "db1")];
    const open = new Map();
    for (let seq = 2; seq < 60; seq += 1) {
      const host = next() < 0.5 ? "web1" : "db1";
      const inode = 1 + Math.floor(next() * 6);
      const state = next() < 0.5 ? "ESTABLISHED" : "CLOSE_WAIT";
      const was = open.get(host + inode);
      if (was === undefined) records.push(tcp("open", seq, 7, inode, { host, state }));
      else if (next() < 0.5) records.push(tcp("update", seq, 7, inode, { host, state, previous: { state: was } }));
      else records.push(tcp("close", seq, 7, inode, { host, state: was }));
      open.set(host + inode, records.at(-1).event === "close" ? undefined : state);
    }
    const again = folded(saved(records)).state;
    assert.deepEqual(rows(again), rows(folded(records).state), `seed ${seed}`);
    assert.equal(again.violations, 0);
  }
});
