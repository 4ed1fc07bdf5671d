import assert from "node:assert/strict";
import { test } from "node:test";

import {
  closeFields, peerText, processFields, processSockets, socketFields,
} from "../../agent/publish/page/fields.js";
import { tcp } from "./make.js";

const NOW = Date.UTC(2026, 10, 28, 5, 12, 0);
const row = (record, since = null) => ({ key: `${record.inode}`, record, since, changed: 0 });
const listener = (more = {}) =>
  tcp("snapshot", 1, 812, 9, {
    state: "LISTEN", direction: "listen", local_addr: "::", remote_addr: null, remote_port: null,
    recv_q: 129, backlog: 128, ...more,
  });

test("a connection has its ends, its queues and its owner", () => {
  const record = tcp("snapshot", 1, 812, 7, { recv_q: 2000, fds: [3, 9], fd_count: 4 });
  const fields = new Map(socketFields(row(record, NOW - 65_000), NOW));
  assert.equal(fields.get("protocol"), "tcp, inet");
  assert.equal(fields.get("local"), "10.0.0.4:443");
  assert.equal(fields.get("remote"), "10.0.0.9:51515");
  assert.equal(fields.get("direction"), "inbound: the other end called");
  assert.equal(fields.get("not read"), "2.0 kB");
  assert.equal(fields.get("not acknowledged"), "0 B");
  assert.equal(fields.get("owner"), "www-data (33)");
  assert.equal(fields.get("descriptors"), "3, 9 and 2 others");
  assert.match(fields.get("open since"), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d, 1 m 5 s ago$/);
  assert.ok(!fields.has("accept queue"));
});

test("a listener has its accept queue, and no remote end", () => {
  const fields = new Map(socketFields(row(listener()), NOW));
  assert.equal(fields.get("accept queue"), "129/128: full");
  assert.equal(fields.get("open since"), "before the records began");
  assert.ok(!fields.has("remote"));
  assert.ok(!fields.has("not read"));
  const usual = new Map(socketFields(row(listener({ recv_q: 128 })), NOW));
  assert.equal(usual.get("accept queue"), "128/128");
});

test("the protocol of a unix socket is named once", () => {
  const record = tcp("open", 1, 812, 7, { proto: "unix", family: "unix", type: "stream" });
  assert.equal(new Map(socketFields(row(record), NOW)).get("protocol"), "unix, stream");
});

test("a guess about the holder is told", () => {
  const record = tcp("open", 1, 812, 7, { attribution: "listener" });
  const fields = new Map(socketFields(row(record), NOW));
  assert.match(fields.get("holder found by"), /^a guess/);
});

test("the end of a connection has what was transferred, as far as it is known", () => {
  const close = tcp("close", 2, 812, 7, {
    reason: "closed", duration_ms: 1000, bytes_sent: 12_345, bytes_received: 99, segments_out: 3,
    segments_in: 1, retransmits: 0, rtt_ms: 1.5,
  });
  const fields = new Map(closeFields(close));
  assert.equal(fields.get("sent"), "12.3 kB in 3 segments");
  assert.equal(fields.get("received"), "99 B in 1 segment");
  assert.equal(fields.get("sent again"), "0 segments");
  assert.equal(fields.get("round trip"), "1.5 ms");
  assert.equal(fields.get("was open for"), "1.0 s");
  const unknown = closeFields({ ...close, duration_ms: null, bytes_sent: null, bytes_received: null,
    retransmits: null, rtt_ms: null });
  assert.deepEqual(unknown.map(([label]) => label), ["closed", "reason", "was open for"]);
});

test("texts are safe, and what is unknown has no line", () => {
  const record = tcp("snapshot", 1, 812, 7, { comm: "a\u202eb", unit: null, exe: "/\x1b" });
  const fields = new Map(processFields(record, NOW));
  assert.equal(fields.get("name"), "a\\x{202e}b");
  assert.equal(fields.get("program"), "/\\x1b");
  assert.ok(!fields.has("unit"));
  const { comm, exe, ppid, start_time, unit, cgroup, container, ...unseen } = record;
  assert.deepEqual(processFields({ ...unseen, pid: null }, NOW), []);
});

test("the sockets of the process are counted by what they do, its listeners named", () => {
  const record = tcp("snapshot", 1, 812, 7);
  const many = Array.from({ length: 8 }, (_, index) =>
    listener({ inode: 20 + index, local_port: 8000 + index, recv_q: 0 }));
  const rows = [
    record, listener(), ...many, tcp("snapshot", 1, 812, 8, { state: "CLOSE_WAIT" }),
    tcp("snapshot", 1, 813, 10), tcp("snapshot", 1, 812, 11, { host: "db1" }),
    tcp("snapshot", 1, 812, 12, { direction: "outbound" }),
  ].map((one) => row(one));
  const fields = new Map(processSockets(rows, record));
  assert.equal(fields.get("sockets"), "12");
  assert.equal(fields.get("inbound"), "2");
  assert.equal(fields.get("outbound"), "1");
  assert.equal(fields.get("CLOSE_WAIT"), "1");
  assert.match(fields.get("listens on"), /^\[\*\]:443, queue 129\/128: full; \[\*\]:8000, queue 0\/128;/);
  assert.match(fields.get("listens on"), /; 3 more$/);
  assert.deepEqual(processSockets(rows, { ...record, pid: null }), []);
});

test("without a row the other end is said in words", () => {
  const none = { row: null, ambiguous: false, across: false };
  assert.equal(peerText({ ...none, ambiguous: true }, tcp("open", 1, 1, 1)), "several sockets fit");
  assert.equal(peerText(none, tcp("open", 1, 1, 1)), "not among the sockets here");
  assert.equal(peerText(none, listener()), "");
  assert.equal(peerText(none, { ...listener(), family: "unix", peer_pid: 5 }), "pid 5");
});
