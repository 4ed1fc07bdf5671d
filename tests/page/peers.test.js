import assert from "node:assert/strict";
import { test } from "node:test";

import { Peers, unmapped } from "../../agent/publish/page/peers.js";

let inode = 100;

/** @param {string} local @param {string | null} remote @param {object} [fields] @returns {any} */
function row(local, remote, fields = {}) {
  const [la, lp] = local.split("|");
  const [ra, rp] = remote === null ? [null, null] : remote.split("|");
  const record = {
    event: "open", host: "a", proto: "tcp", family: "inet", state: "ESTABLISHED", netns: 1,
    local_addr: la, local_port: Number(lp), remote_addr: ra, remote_port: rp && Number(rp),
    inode: (inode += 1), pid: inode, comm: "c", start_time: "2026", direction: null, ...fields,
  };
  return { key: `${record.host} ${record.pid} ${record.inode}`, record, since: null, changed: 0 };
}

/** @param {any[]} rows @returns {any[]} */
const found = (...rows) => {
  const peers = new Peers(rows);
  return rows.map((one) => peers.of(one));
};

test("the two ends of a connection on one host find each other", () => {
  const [one, two] = [row("127.0.0.1|1", "127.0.0.1|2"), row("127.0.0.1|2", "127.0.0.1|1")];
  const [peer, back] = found(one, two);
  assert.equal(peer.row, two);
  assert.equal(back.row, one);
  assert.ok(!peer.across && !peer.ambiguous);
});

test("another namespace, another protocol and a listener are no peers", () => {
  const one = row("127.0.0.1|1", "127.0.0.1|2");
  for (const other of [
    row("127.0.0.1|2", "127.0.0.1|1", { netns: 2 }), row("127.0.0.1|2", "127.0.0.1|1", { proto: "udp" }),
    row("127.0.0.1|2", null, { state: "LISTEN" }), row("127.0.0.1|2", "127.0.0.1|3"),
    row("127.0.0.1|2", "127.0.0.1|1", { host: "b" }),
  ]) {
    assert.deepEqual(found(one, other)[0], { row: null, ambiguous: false, across: false });
  }
});

test("an unknown namespace joins nothing on the host", () => {
  const ends = [row("127.0.0.1|1", "127.0.0.1|2", { netns: null }),
    row("127.0.0.1|2", "127.0.0.1|1", { netns: null })];
  assert.equal(found(...ends)[0].row, null);
});

test("an IPv4 address that is mapped into IPv6 is the same address", () => {
  const ends = [row("10.0.0.1|1", "10.0.0.1|2"),
    row("::ffff:10.0.0.1|2", "::ffff:10.0.0.1|1", { family: "inet6" })];
  assert.deepEqual(found(...ends).map((peer) => peer.row), [ends[1], ends[0]]);
  assert.equal(unmapped("::ffff:a"), "::ffff:a");
});

test("of several holders of the other end the oldest is named", () => {
  const one = row("127.0.0.1|1", "127.0.0.1|2");
  const shared = { inode: 5 };
  const young = row("127.0.0.1|2", "127.0.0.1|1", { ...shared, start_time: "2026-02", pid: 1 });
  const old = row("127.0.0.1|2", "127.0.0.1|1", { ...shared, start_time: "2026-01", pid: 9 });
  assert.equal(found(one, young, old)[0].row, old);
});

test("two sockets that fit in one namespace are ambiguous", () => {
  const twin = () => row("127.0.0.1|2", "127.0.0.1|1", { proto: "udp" });
  const peers = found(row("127.0.0.1|1", "127.0.0.1|2", { proto: "udp" }), twin(), twin());
  assert.deepEqual(peers[0], { row: null, ambiguous: true, across: false });
});

test("unix sockets are joined by the inode of the peer", () => {
  const unix = { proto: "unix", family: "unix", local_addr: undefined, remote_addr: undefined };
  const one = row("|", null, { ...unix, inode: 1, peer_inode: 2 });
  const two = row("|", null, { ...unix, inode: 2, peer_inode: 1 });
  const other = row("|", null, { ...unix, inode: 3, peer_inode: 9 });
  const foreign = row("|", null, { ...unix, inode: 9, host: "b" });
  assert.deepEqual(found(one, two, other, foreign).map((peer) => peer.row), [two, one, null, null]);
});

test("exactly one other host joins across hosts", () => {
  const one = row("10.0.0.1|1", "10.0.0.2|2");
  const two = row("10.0.0.2|2", "10.0.0.1|1", { host: "b", netns: 7 });
  const [peer, back] = found(one, two);
  assert.deepEqual([peer.row, peer.across, back.row, back.across], [two, true, one, true]);
});

test("several hosts at either end are ambiguous for all of them", () => {
  const one = row("10.0.0.1|1", "10.0.0.2|2");
  const two = row("10.0.0.2|2", "10.0.0.1|1", { host: "b" });
  const three = row("10.0.0.2|2", "10.0.0.1|1", { host: "c" });
  for (const peer of found(one, two, three)) {
    assert.deepEqual(peer, { row: null, ambiguous: true, across: false });
  }
});

test("the other end in another namespace of the host makes another host ambiguous", () => {
  const one = row("10.0.0.1|1", "10.0.0.2|2");
  const two = row("10.0.0.2|2", "10.0.0.1|1", { netns: 2 });
  const three = row("10.0.0.2|2", "10.0.0.1|1", { host: "b" });
  assert.ok(found(one, two, three)[0].ambiguous);
});

/** What the rules say, by looking at every pair of rows. @param {any[]} rows @param {any} row */
function naive(rows, row) {
  const own = row.record;
  /** @param {any} one @param {any} two */
  const swapped = (one, two) => one.proto === two.proto && one.local_addr === two.remote_addr &&
    one.local_port === two.remote_port && one.remote_addr === two.local_addr &&
    one.remote_port === two.local_port;
  const fits = rows.filter((other) => swapped(own, other.record));
  const here = fits.filter((o) => o.record.host === own.host && o.record.netns === own.netns);
  /** @param {any[]} list */
  const inodes = (list) => new Set(list.map((o) => `${o.record.host} ${o.record.netns} ${o.record.inode}`));
  /** @param {any[]} list */
  const oldest = (list) => [...list].sort((x, y) =>
    x.record.start_time < y.record.start_time ? -1 : x.record.start_time > y.record.start_time ? 1
      : x.record.pid - y.record.pid)[0];
  const none = { row: null, ambiguous: false, across: false };
  if (here.length) {
    return inodes(here).size > 1 ? { ...none, ambiguous: true } : { ...none, row: oldest(here) };
  }
  if (own.local_addr.startsWith("127.")) return none;
  const away = fits.filter((o) => o.record.host !== own.host);
  if (away.length === 0) return none;
  const same = rows.filter((o) => swapped(o.record, { ...own, local_addr: own.remote_addr,
    local_port: own.remote_port, remote_addr: own.local_addr, remote_port: own.local_port }));
  if (inodes(same).size > 1 || inodes(fits).size > 1) return { ...none, ambiguous: true };
  return { row: oldest(away), ambiguous: false, across: true };
}

test("random rows are joined as by looking at every pair", () => {
  let seed = 7;
  /** @param {number} limit */
  const random = (limit) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return Math.floor((seed / 2147483648) * limit);
  };
  const kinds = { joined: 0, across: 0, ambiguous: 0, none: 0 };
  for (let round = 0; round < 300; round += 1) {
    const size = 2 + random(14);
    const rows = Array.from({ length: size }, () => {
      const loop = random(4) === 0;
      const end = () => `${loop ? "127.0.0.1" : `10.0.0.${random(2)}`}|${random(2)}`;
      return row(end(), end(), {
        host: "abc"[random(3)], netns: random(2), proto: random(4) ? "tcp" : "udp",
        inode: 1 + random(12), pid: random(50), start_time: `202${random(4)}`,
      });
    });
    const peers = new Peers(rows);
    for (const one of rows) {
      const peer = peers.of(one);
      const expected = naive(rows, one);
      // Rows of the same age and pid are alike.
      if (peer.row && expected.row && peer.row !== expected.row) {
        assert.deepEqual([peer.row.record.start_time, peer.row.record.pid],
          [expected.row.record.start_time, expected.row.record.pid]);
        expected.row = peer.row;
      }
      assert.deepEqual(peer, expected);
      kinds[peer.ambiguous ? "ambiguous" : peer.across ? "across" : peer.row ? "joined" : "none"] += 1;
    }
  }
  for (const [kind, seen] of Object.entries(kinds)) assert.ok(seen > 20, `${kind}: ${seen}`);
});
