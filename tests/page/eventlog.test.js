import assert from "node:assert/strict";
import { test } from "node:test";

import { describe, EventLog, MAX_MARKS } from "../../agent/publish/page/eventlog.js";

const TIME = "2026-11-28T03:12:04.000000Z";

/** @param {object} fields */
const record = (fields) => /** @type {any} */ ({
  event: "open", seq: 1, time: TIME, host: "web1", proto: "tcp", family: "inet",
  state: "ESTABLISHED", local_addr: "10.0.0.4", local_port: 443, remote_addr: "10.0.0.9",
  remote_port: 51515, direction: "inbound", inode: 7, pid: 812, comm: "nginx", fds: [3, 4],
  uid: 0, exe: "/usr/sbin/nginx", ppid: 1, unit: "web.service", ...fields,
});

test("an open names the process, the direction, both ends and the unit", () => {
  const line = describe(record({}));
  assert.equal(line.word, "open");
  assert.equal(line.process, "nginx[812]");
  assert.equal(line.direction, "in");
  assert.equal(line.ends, "10.0.0.9:51515 → 10.0.0.4:443");
  assert.equal(line.detail, "");
  assert.equal(line.place, "web.service");
  assert.match(line.time, /^\d\d:\d\d:04$/);
});

test("an unusual state and a guessed holder are in the detail", () => {
  assert.equal(describe(record({ state: "SYN_SENT" })).detail, "SYN_SENT");
  assert.equal(describe(record({ attribution: "listener" })).detail,
    "holder guessed from the listener");
  assert.equal(describe(record({ direction: "listen" })).direction, "-");
});

test("an update says what changed, the state first", () => {
  const line = describe(record({
    event: "update", state: "CLOSE_WAIT", fds: [3],
    previous: { fds: [3, 4], state: "ESTABLISHED", comm: "old", uid: 5, remote_port: 1 },
  }));
  assert.equal(line.detail,
    "ESTABLISHED → CLOSE_WAIT; was 10.0.0.9:1 → 10.0.0.4:443; fds 3 4 → 3; comm old → nginx; " +
    "owner 5 → 0");
  assert.equal(line.tone, "bad");
});

test("a close has reason, duration and what was transferred", () => {
  const close = { event: "close", reason: "closed", duration_ms: 1000 };
  assert.equal(describe(record(close)).detail, "closed after 1.0 s");
  assert.equal(describe(record({ ...close, duration_ms: null })).detail, "closed");
  assert.equal(describe(record({ ...close, reason: "attributed" })).detail, "holder found");
  assert.equal(describe(record({ ...close, reason: "filtered" })).detail, "no longer matches");
  assert.equal(
    describe(record({ ...close, bytes_sent: 3400, bytes_received: 12, retransmits: 2 })).detail,
    "closed after 1.0 s; 3.4 kB sent, 12 B received, 2 retransmits");
  assert.equal(
    describe(record({ ...close, inode: null, pid: null, duration_ms: null })).detail,
    "over before a poll: holder not seen");
});

test("marks say what is missing", () => {
  const head = { seq: 1, time: TIME, host: "web1" };
  const lost = describe(/** @type {any} */ ({ ...head, event: "lost", from: 1200, to: 1260 }));
  assert.equal(lost.word, "LOST");
  assert.equal(lost.detail, "1200–1260: the reader was too slow");
  assert.ok(lost.mark);
  assert.match(describe(/** @type {any} */ ({ ...head, event: "lost", from: 9, to: null })).detail,
    /^9 on: /);
  const coverage = { ...head, event: "coverage", processes: 573, missing: [], unreadable: 1 };
  assert.equal(describe(/** @type {any} */ (coverage)).detail,
    "573 processes; 1 could not be read");
  assert.equal(
    describe(/** @type {any} */ ({ ...coverage, unreadable: 0, complete: true })).detail,
    "573 processes; everything could be read");
});

test("texts of the kernel are made safe", () => {
  const line = describe(record({ comm: "a\u202eb", unit: "x\u001b.service" }));
  assert.equal(line.process, "a\\x{202e}b[812]");
  assert.equal(line.place, "x\\x1b.service");
});

test("the ring keeps the newest lines and counts the others", () => {
  const log = new EventLog(3);
  for (let pid = 0; pid < 5; pid += 1) log.push(record({ pid }));
  log.push(record({ event: "snapshot" }));
  assert.equal(log.length, 3);
  assert.equal(log.dropped, 2);
  const pids = [0, 1, 2].map((index) => /** @type {any} */ (log.at(index)).pid);
  assert.deepEqual(pids, [2, 3, 4]);
  assert.equal(log.at(3), undefined);
  assert.equal(log.at(-1), undefined);
  assert.deepEqual(log.newest(2, (one) => one.pid !== 4).map((one) => one.pid), [3, 2]);
});

test("marks outlive the lines and have their number", () => {
  const log = new EventLog(2);
  const lost = /** @type {any} */ ({ event: "lost", seq: 1, time: TIME, host: "a", from: 1, to: 2 });
  log.push(record({}));
  log.push(lost);
  for (let index = 0; index < 4; index += 1) log.push(record({}));
  assert.deepEqual(log.marks, [{ record: lost, index: 1 }]);
  for (let index = 0; index < MAX_MARKS + 5; index += 1) log.push(lost);
  assert.equal(log.marks.length, MAX_MARKS);
});
