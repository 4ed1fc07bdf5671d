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

test("records with a field of another type are no records", () => {
  const open = tcp("open", 1, 7, 9);
  const update = tcp("update", 1, 7, 9, { previous: { state: "SYN_SENT", fds: [4] } });
  const bad = Object.keys(open)
    .filter((name) => open[name] !== null || name === "container")
    .flatMap((name) => [{}, [[]], true].map((value) => ({ ...open, [name]: value })));
  bad.push(
    { ...update, previous: 5 }, { ...update, previous: { comm: {} } }, { ...open, cmdline: "app" },
    { ...open, cmdline: [1] }, { ...open, local_port: "80" }, { ...open, comm: 5 },
    { ...hello(1), missing: [{}] }, { ...hello(1), version: {} }, { ...hello(1), interval: null },
    { ...hello(1), events_off: [] }, { ...hello(1), unreadable: "1" },
  );
  const good = [open, update, { ...open, cmdline: ["app", ""] }, { ...open, comm: null }];
  assert.deepEqual(parseRecords(lines(...bad, ...good)), { records: good, bad: bad.length });
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
