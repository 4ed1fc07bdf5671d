import assert from "node:assert/strict";
import { test } from "node:test";

import {
  addressKey, chosenColumns, COLUMNS, DEFAULT, marks, shorten, sortRows,
} from "../../agent/publish/page/columns.js";

const CONTEXT = { now: 10_000, peerOf: () => null };

function row(fields = {}, since = null) {
  const record = {
    event: "snapshot", seq: 1, time: "2026-11-28T03:12:04.000000Z", host: "web1", proto: "tcp",
    family: "inet", state: "ESTABLISHED", local_addr: "10.0.0.4", local_port: 443,
    remote_addr: "10.0.0.9", remote_port: 51515, direction: "inbound", recv_q: 0, send_q: 0,
    inode: 7, netns: 1, uid: 33, user: "www-data", source: "netlink", pid: 812, comm: "nginx",
    ...fields,
  };
  return { key: `web1\0${record.pid}\0${record.inode}`, record, since, changed: 0 };
}

const text = (id, one, context = CONTEXT) => COLUMNS.get(id).value(one, context);
const sorted = (id, rows, descending = false) =>
  sortRows(rows, COLUMNS.get(id), descending, CONTEXT);

test("the first columns have the texts of the terminal", () => {
  const one = row({ unit: "web.service" }, 4000);
  const texts = DEFAULT.map((id) => text(id, one));
  assert.deepEqual(texts, [
    "nginx", "812", "www-data", "tcp", "in", "ESTABLISHED", "10.0.0.4:443", "10.0.0.9:51515", "-",
    "web.service", "6s",
  ]);
});

test("what is unknown is a dash, and an unknown process a question mark", () => {
  const one = row({ pid: null, comm: undefined, user: null, uid: null, state: null });
  const texts = ["process", "pid", "user", "state", "unit", "age"].map((id) => text(id, one));
  assert.deepEqual(texts, ["?", "-", "-", "-", "-", "-"]);
});

test("every column makes safe texts and keys of one kind", () => {
  const nasty = "\u202e<img onerror>\x1b";
  const strings = Object.fromEntries(
    ["host", "comm", "user", "unit", "exe", "cgroup", "container", "path", "interface", "proto",
      "state", "local_addr", "remote_addr", "start_time", "type", "family", "source"]
      .map((name) => [name, nasty]),
  );
  const rows = [row(), row({ ...strings, cmdline: [nasty] }, 5), row({ family: "unix", path: nasty })];
  for (const column of COLUMNS.values()) {
    const kinds = new Set();
    for (const one of rows) {
      assert.doesNotMatch(column.value(one, CONTEXT), /[\x00-\x1f\u202e]/, column.id);
      const key = column.key(one, CONTEXT);
      if (key !== null) kinds.add(typeof key);
    }
    assert.ok(kinds.size <= 1, column.id);
  }
});

test("addresses sort as numbers: IPv4, IPv6, then names", () => {
  const addresses = [
    "0.0.0.0", "9.0.0.1", "10.0.0.2", "10.0.0.10", "255.1.1.1", "::", "::1", "::ffff:9.0.0.1",
    "::ffff:10.0.0.1", "2001:db8::1", "2001:db8:0:1::", "fe80::1:2:3:4", "@name", "route",
  ];
  const keys = addresses.map(addressKey);
  assert.deepEqual([...keys].sort(), keys);
  assert.equal(addressKey("2001:db8::1"), addressKey("2001:0DB8:0:0::0:1".toLowerCase()));
  for (const name of ["1:2", "::1::", "1:2:3:4:5:6:7:8:9", "256.0.0.1", ":", "12345::"]) {
    assert.equal(addressKey(name)[0], "3", name);
  }
});

test("the sockets of a process stand together among those of its name", () => {
  const pids = [9, 812, 9, 70_000, 812];
  const rows = pids.map((pid) => row({ pid }));
  rows.push(row({ comm: undefined, pid: null }), row({ comm: "a", pid: 900 }));
  const found = sorted("process", rows).map((one) => one.record.pid);
  assert.deepEqual(found, [900, 9, 9, 812, 812, 70_000, null]);
});

test("ends sort by address, then by port", () => {
  const ends = [["10.0.0.4", 8080], ["9.0.0.1", 99], ["10.0.0.4", 443]];
  const rows = ends.map(([local_addr, local_port]) => row({ local_addr, local_port }));
  assert.deepEqual(sorted("local", rows).map((one) => one.record.local_port), [99, 443, 8080]);
});

test("rows without a value stand last in both directions, equal ones keep their order", () => {
  const rows = [row({ unit: "b", pid: 1 }), row({ pid: 2 }), row({ unit: "a", pid: 3 }),
    row({ unit: "b", pid: 4 })];
  const pids = (descending) => sorted("unit", rows, descending).map((one) => one.record.pid);
  assert.deepEqual(pids(false), [3, 1, 4, 2]);
  assert.deepEqual(pids(true), [1, 4, 3, 2]);
});

test("the youngest have the least age", () => {
  const rows = [row({ pid: 1 }, 1000), row({ pid: 2 }, 3000), row({ pid: 3 })];
  assert.deepEqual(sorted("age", rows).map((one) => one.record.pid), [2, 1, 3]);
});

test("the peer is the process at the other end, of a unix socket at least its pid", () => {
  const peer = row({ comm: "gunicorn", pid: 1201, path: "/run/g.sock" });
  const context = { now: 0, peerOf: () => peer };
  assert.equal(text("peer", row(), context), "gunicorn[1201]");
  assert.equal(text("peer", row({ host: "db1" }), context), "gunicorn[1201] web1");
  assert.equal(text("peer", row({ family: "unix", peer_pid: 5 })), "?[5]");
  assert.equal(text("remote", row({ family: "unix" }), context), "/run/g.sock");
});

test("chosen columns stand in the order of all columns; unknown ones are left out", () => {
  const ids = (names, several) => chosenColumns(names, several).map(({ id }) => id);
  assert.deepEqual(ids(null, false), DEFAULT);
  assert.deepEqual(ids(null, true), ["host", ...DEFAULT]);
  assert.deepEqual(ids(["inode", "nothing", "pid"], true), ["pid", "inode"]);
  assert.deepEqual(ids(["nothing"], false), DEFAULT);
});

test("texts are shortened in the middle, by whole characters", () => {
  assert.equal(shorten("abcdefghij", 10), "abcdefghij");
  assert.equal(shorten("abcdefghijk", 6), "abc…jk");
  assert.equal(shorten("😀😀😀😀😀", 5), "😀😀😀😀😀");
  assert.equal(shorten("😀😀😀😀😀", 4), "😀😀…😀");
});

test("what stands out is marked", () => {
  assert.equal(marks(row().record), "");
  assert.equal(marks(row({ state: "CLOSE_WAIT" }).record), "close-wait");
  const listener = { state: "LISTEN", direction: "listen", remote_addr: null, backlog: 128 };
  assert.equal(marks(row({ ...listener, recv_q: 128 }).record), "listen");
  assert.equal(
    marks(row({ ...listener, local_addr: "::", recv_q: 129 }).record),
    "listen any-address queue-full",
  );
});
