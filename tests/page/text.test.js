import assert from "node:assert/strict";
import { test } from "node:test";

import * as text from "../../agent/publish/page/text.js";
import { tcp } from "./make.js";

const unix = (more = {}) => {
  const { local_addr, local_port, remote_addr, remote_port, ...rest } = tcp("open", 1, 7, 9);
  return { ...rest, proto: "unix", family: "unix", path: null, peer_pid: null, direction: null, ...more };
};

test("unsafe characters are escaped, others stay", () => {
  assert.equal(text.safe("nginx: worker"), "nginx: worker");
  assert.equal(text.safe("\x1b[31m\x7f\x9b"), "\\x1b[31m\\x7f\\x9b");
  assert.equal(text.safe("a\u202eb\u200bc\ufeff"), "a\\x{202e}b\\x{200b}c\\x{feff}");
  assert.equal(text.safe("\u00a0\u00ad\u2028\u3000"), "\\xa0\\xad\\x{2028}\\x{3000}");
  assert.equal(text.safe("\ud800x\u{e0100}\ue000"), "\\x{d800}x\\x{e0100}\\x{e000}");
  assert.equal(text.safe("grüße 服务 🦊"), "grüße 服务 🦊");
  assert.equal(text.safe("<img onerror=alert(1)>"), "<img onerror=alert(1)>");
});

test("no unsafe character is left, of all that there are", () => {
  for (let code = 0; code < 0x3000; code += 1) {
    const shown = text.safe(String.fromCodePoint(code));
    assert.doesNotMatch(shown, /[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]/);
  }
});

test("addresses", () => {
  assert.equal(text.address("10.0.0.4", 443), "10.0.0.4:443");
  assert.equal(text.address("0.0.0.0", 443), "*:443");
  assert.equal(text.address("::", 443), "[*]:443");
  assert.equal(text.address("fe80::1", 443, "%eth0"), "[fe80::1%eth0]:443");
  assert.equal(text.address("127.0.0.1", 0), "127.0.0.1:*");
  assert.equal(text.address(null, null), "-");
  assert.equal(text.address(null, 53), "*:53");
});

test("ends of sockets", () => {
  const open = tcp("open", 1, 7, 9);
  assert.equal(text.endpoint(open, "local"), "10.0.0.4:443");
  assert.equal(text.endpoint(open, "remote"), "10.0.0.9:51515");
  assert.equal(text.endpoint({ ...open, remote_addr: null, remote_port: null }, "remote"), "*");
  assert.equal(text.endpoint({ ...open, interface: "eth0" }, "local"), "10.0.0.4%eth0:443");
  assert.equal(text.endpoint(unix({ path: "/run/\x1b.sock" }), "local"), "/run/\\x1b.sock");
  assert.equal(text.endpoint(unix(), "local"), "-");
  assert.equal(text.endpoint(unix(), "remote"), "-");
  const netlink = { ...open, family: "netlink", local_addr: "route", local_port: 812 };
  assert.equal(text.endpoint(netlink, "local"), "route:812");
  assert.equal(text.endpoint({ ...netlink, local_port: null }, "local"), "route:*");
});

test("both ends with an arrow to who was called", () => {
  const open = tcp("open", 1, 7, 9);
  assert.equal(text.ends(open), "10.0.0.9:51515 → 10.0.0.4:443");
  assert.equal(text.ends({ ...open, direction: "outbound" }), "10.0.0.4:443 → 10.0.0.9:51515");
  assert.equal(text.ends({ ...open, direction: null }), "10.0.0.4:443 – 10.0.0.9:51515");
  assert.equal(text.ends({ ...open, remote_addr: null }), "10.0.0.4:443");
  assert.equal(text.ends(unix()), "unnamed");
  assert.equal(text.ends(unix({ peer_pid: 8 })), "unnamed – pid 8");
});

test("directions, processes, users, queues", () => {
  const open = tcp("open", 1, 7, 9);
  const udp = { ...open, proto: "udp", direction: null, remote_addr: null };
  assert.equal(text.direction(open), "in");
  assert.equal(text.direction({ ...open, direction: "listen" }), "·");
  assert.equal(text.direction({ ...open, direction: null }), "-");
  assert.equal(text.direction(udp), "·");
  assert.ok(text.listens(udp) && !text.listens(open) && text.listens({ ...open, state: "LISTEN" }));
  assert.equal(text.process(open), "nginx[7]");
  assert.equal(text.process({ ...open, comm: "a\nb" }), "a\\x0ab[7]");
  assert.equal(text.process({ ...open, pid: null }), "?");
  assert.equal(text.user(open), "www-data");
  assert.equal(text.user({ ...open, user: null }), "33");
  assert.equal(text.user({ ...open, user: null, uid: null }), "-");
  const listener = { ...open, state: "LISTEN", recv_q: 129, backlog: 128 };
  assert.equal(text.queue(listener), "129/128");
  assert.equal(text.queue(open), "0");
  assert.equal(text.queue({ ...open, recv_q: null }), "-");
  assert.ok(text.isQueueFull(listener) && !text.isQueueFull({ ...listener, recv_q: 128 }));
});

test("loopback and any addresses", () => {
  for (const addr of ["127.0.0.1", "::1", "::ffff:127.0.0.1"]) assert.ok(text.isLoopback(addr));
  for (const addr of ["10.0.0.1", "::", null, undefined]) assert.ok(!text.isLoopback(addr));
  assert.ok(text.isAny("::") && text.isAny("0.0.0.0") && !text.isAny("::1") && !text.isAny(null));
});

test("durations and numbers", () => {
  assert.deepEqual([-5, 12_400, 240_000, 7_200_000, 172_800_000].map(text.age), ["0s", "12s", "4m", "2h", "2d"]);
  assert.deepEqual(
    [1000, 252_000, 11_100_000, 187_200_000].map(text.duration),
    ["1.0 s", "4 m 12 s", "3 h 5 m", "2 d 4 h"],
  );
  assert.deepEqual([0, 999, 3639, 1234567].map(text.count), ["0", "999", "3,639", "1,234,567"]);
  assert.deepEqual(
    [text.counted(1, "socket"), text.counted(3639, "socket"), text.counted(2, "process")],
    ["1 socket", "3,639 sockets", "2 processes"],
  );
  assert.deepEqual([512, 3400, 2.5e6, 1e9].map(text.bytes), ["512 B", "3.4 kB", "2.5 MB", "1.0 GB"]);
  assert.equal(text.clock(new Date(2026, 10, 28, 3, 12, 4).getTime()), "03:12:04");
});

test("rows that are not of the internet are counted by protocol", () => {
  const rows = [tcp("open", 1, 7, 1), unix(), unix(), unix({ proto: "netlink", family: "netlink" }),
    unix({ proto: null, family: null })].map((record) => ({ record }));
  assert.equal(text.notShown(rows), "Not shown: 2 unix, 1 ?, 1 netlink");
  assert.equal(text.notShown(rows.slice(0, 1)), "");
});
