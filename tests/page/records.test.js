import assert from "node:assert/strict";
import { test } from "node:test";

import { isSocketRecord, keyOf, parseRecords, timeOf } from "../../agent/publish/page/records.js";
import { end, hello, lost, tcp } from "./make.js";

const lines = (...records) => records.map((one) => JSON.stringify(one) + "\n").join("");

test("all lines are records", () => {
  const records = [hello(1), tcp("snapshot", 1, 7, 9), end(1, 1), lost(5, 2, 5), lost(9, 6, null)];
  assert.deepEqual(parseRecords(lines(...records)), { records, bad: 0 });
});

test("lines that are no records are counted", () => {
  const open = tcp("open", 1, 7, 9);
  const text = lines(open) + "{\n[]\nnull\n7\n{}\n" +
    lines({ ...open, seq: "1" }, { ...open, time: "noon" }, { ...open, inode: "x" },
      { ...open, pid: undefined }, { ...hello(1), epoch: 7 }, { ...lost(1, 1, 1), from: null }, open);
  assert.deepEqual(parseRecords(text), { records: [open, open], bad: 11 });
});

test("values of wrong types are unknown", () => {
  const texts = { comm: 7, unit: {}, state: ["LISTEN"], start_time: true };
  const numbers = { local_port: "443", recv_q: 1e999, uid: {} };
  const wrong = { ...texts, direction: "__proto__", fds: "3", cmdline: [1, "a"], previous: { state: 7, pid: 9 } };
  const line = JSON.stringify({ ...tcp("update", 1, 7, 9), ...texts, ...numbers, ...wrong }).replace('"recv_q":null', '"recv_q":1e999');
  const [record] = parseRecords(line).records;
  for (const name of [...Object.keys(texts), ...Object.keys(numbers), "direction"]) {
    assert.equal(record[name], null, name);
  }
  assert.deepEqual([record.fds, record.cmdline, record.previous], [[], ["a"], { state: null, pid: 9 }]);
  const [open] = parseRecords(JSON.stringify({ ...tcp("open", 1, 7, 9), previous: 7 })).records;
  assert.deepEqual(open.previous, {});
  const [first] = parseRecords(JSON.stringify({ ...hello(1), missing: [7, "x", null] })).records;
  assert.deepEqual(first.missing, ["x"]);
});

test("records of unknown events are neither counted nor returned", () => {
  assert.deepEqual(parseRecords(lines({ ...hello(1), event: "new" })), { records: [], bad: 0 });
});

test("text that does not end in a newline, and carriage returns", () => {
  const open = tcp("open", 1, 7, 9);
  const text = `\r\n${JSON.stringify(open)}\r\n${JSON.stringify(open)}`;
  assert.deepEqual(parseRecords(text), { records: [open, open], bad: 0 });
});

test("the key has host, pid and inode", () => {
  assert.equal(keyOf(tcp("open", 1, 7, 9)), "web1\x007\x009");
  assert.equal(keyOf(tcp("open", 1, null, 9)), "web1\x00\x009");
  assert.equal(keyOf(tcp("open", 1, 7, null)), "web1\x007\x00");
});

test("the time is in milliseconds", () => {
  const open = { ...tcp("open", 1, 7, 9), time: "2026-11-28T03:12:04.250000Z" };
  assert.equal(timeOf(open), Date.UTC(2026, 10, 28, 3, 12, 4, 250));
  assert.equal(timeOf({ ...open, time: "2026-11-28T03:12:05Z" }), Date.UTC(2026, 10, 28, 3, 12, 5));
  assert.equal(timeOf(open), Date.UTC(2026, 10, 28, 3, 12, 4, 250));
});

test("which records are of sockets", () => {
  assert.ok(isSocketRecord(tcp("close", 1, 7, 9)));
  assert.ok(!isSocketRecord(end(1, 1)));
});
