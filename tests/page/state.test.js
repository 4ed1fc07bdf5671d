import assert from "node:assert/strict";
import { test } from "node:test";

import { State } from "../../agent/publish/page/state.js";
import { at, end, hello, lost, random, tcp } from "./make.js";

const ms = (second) => Date.parse(at(second));
const folded = (...records) => {
  const state = new State();
  for (const one of records) state.apply(one);
  return state;
};
const held = (state) => [...state.rows.values()].map((row) => [row.record.pid, row.record.inode]);

test("a snapshot and changes", () => {
  const state = folded(
    hello(1), tcp("snapshot", 1, 7, 1), tcp("snapshot", 1, 7, 2), end(1, 2),
    tcp("open", 2, 7, 3), tcp("update", 3, 7, 1, { state: "CLOSE_WAIT" }), tcp("close", 4, 7, 2),
  );
  assert.deepEqual(held(state), [[7, 1], [7, 3]]);
  const [first, second] = state.rows.values();
  assert.deepEqual([first.since, first.changed, first.record.state], [null, ms(3), "CLOSE_WAIT"]);
  assert.deepEqual([second.since, second.key], [ms(2), "web1\x007\x003"]);
  assert.deepEqual(state.counts, { total: 2, listen: 0, inbound: 2, outbound: 0, closeWait: 1 });
  assert.equal(state.violations, 0);
  const host = state.hosts.get("web1");
  assert.deepEqual(
    [host.epoch, host.seq, host.complete, host.lastTime], ["e1", 4, true, ms(4)],
  );
  assert.equal(host.coverage.processes, 40);
});

test("the first snapshot counts before its end", () => {
  const state = folded(hello(1), tcp("snapshot", 1, 7, 1));
  assert.deepEqual(held(state), [[7, 1]]);
  assert.ok(!state.hosts.get("web1").complete);
  assert.deepEqual(state.positions(), []);
});

test("a later snapshot replaces the rows at its end, and openings keep their time", () => {
  const state = folded(hello(1), tcp("snapshot", 1, 7, 1), end(1, 1), tcp("open", 2, 7, 2), lost(9, 3, 9));
  state.apply(tcp("snapshot", 9, 7, 2));
  state.apply(tcp("snapshot", 9, 7, 3));
  assert.deepEqual(held(state), [[7, 1], [7, 2]]);
  assert.deepEqual(state.positions(), []);
  state.apply(end(9, 2));
  assert.deepEqual(held(state), [[7, 2], [7, 3]]);
  assert.deepEqual([...state.rows.values()].map((row) => row.since), [ms(2), null]);
  assert.deepEqual(state.hosts.get("web1").lost, [[3, 9]]);
  assert.deepEqual(state.positions(), [["e1", 9]]);
});

test("a row of another process did not open when its namesake did", () => {
  const state = folded(hello(1), end(1, 0), tcp("open", 2, 7, 2), lost(9, 3, 9));
  state.apply(tcp("snapshot", 9, 7, 2, { start_time: at(5) }));
  state.apply(end(9, 1));
  assert.deepEqual([...state.rows.values()].map((row) => row.since), [null]);
});

test("a snapshot that was cut off is forgotten with the next one", () => {
  const state = folded(hello(1), tcp("snapshot", 1, 7, 1), hello(2), tcp("snapshot", 2, 7, 2), end(2, 1));
  assert.deepEqual(held(state), [[7, 2]]);
  assert.equal(state.violations, 0);
});

test("an empty snapshot, first and later", () => {
  assert.deepEqual(held(folded(hello(1), tcp("snapshot", 1, 7, 1), hello(2), end(2, 0))), []);
  assert.deepEqual(held(folded(tcp("open", 1, 7, 1), end(1, 0))), []);
  const state = folded(hello(1), tcp("snapshot", 1, 7, 1), end(1, 1), hello(2), end(2, 0));
  assert.deepEqual(held(state), []);
  assert.equal(state.counts.total, 0);
});

test("sockets without an inode: each of a snapshot has a row, changes leave no trace", () => {
  const one = tcp("snapshot", 1, null, null);
  const state = folded(hello(1), one, one, tcp("snapshot", 1, null, 0), end(1, 3));
  assert.equal(state.rows.size, 3);
  state.apply(tcp("open", 2, null, null));
  state.apply(tcp("close", 3, null, null));
  assert.deepEqual([state.rows.size, state.violations], [3, 0]);
});

test("records that do not fit are counted", () => {
  const state = folded(
    hello(1), tcp("snapshot", 1, 7, 1), end(1, 1), tcp("open", 2, 7, 1), tcp("close", 3, 7, 9),
    tcp("update", 4, 7, 8), hello(5), tcp("snapshot", 5, 7, 1), tcp("snapshot", 5, 7, 1), end(5, 2),
  );
  assert.equal(state.violations, 5);
  assert.deepEqual(held(state), [[7, 1]]);
});

test("each host has rows of its own, and a position", () => {
  const other = { host: "db1" };
  const state = folded(
    hello(1), tcp("snapshot", 1, 7, 1), end(1, 1),
    hello(5, { epoch: "e2", host: "db1" }), tcp("snapshot", 5, 7, 1, other), end(5, 1, "db1"),
    tcp("open", 6, 7, 2, other), tcp("open", 2, 7, 3),
  );
  assert.equal(state.rows.size, 4);
  assert.deepEqual(state.positions(), [["e1", 2], ["e2", 6]]);
  for (const one of [lost(9, 7, 9, "db1"), end(9, 0, "db1")]) state.apply(one);
  assert.deepEqual(held(state), [[7, 1], [7, 3]]);
});

test("a stream that resumes stays complete, and its position is that of the changes", () => {
  const state = folded(hello(1), end(1, 0), tcp("open", 2, 7, 1));
  state.apply(hello(50, { resumed: true }));
  assert.deepEqual(state.positions(), [["e1", 2]]);
  state.apply(tcp("open", 3, 7, 2));
  assert.deepEqual(state.positions(), [["e1", 3]]);
  state.apply(hello(60));
  assert.deepEqual(state.positions(), []);
});

test("the changes since the last look", () => {
  const state = folded(hello(1), tcp("snapshot", 1, 7, 1), end(1, 1));
  assert.ok(state.takeChanges().all);
  assert.deepEqual(state.takeChanges(), { added: [], updated: [], removed: [], all: false });
  const before = state.version;
  for (const one of [
    tcp("open", 2, 7, 2), tcp("update", 3, 7, 2), tcp("open", 4, 7, 3), tcp("close", 5, 7, 3),
    tcp("update", 6, 7, 1), tcp("close", 7, 7, 1),
  ]) state.apply(one);
  assert.ok(state.version > before);
  const { added, updated, removed, all } = state.takeChanges();
  assert.deepEqual(added.map((row) => row.record.inode), [2]);
  assert.deepEqual([updated, removed, all], [[], ["web1\x007\x001"], false]);
});

test("many changes at once are a rebuild", () => {
  const state = folded(hello(1), end(1, 0));
  state.takeChanges();
  for (let inode = 1; inode <= 6000; inode += 1) state.apply(tcp("open", 2, 7, inode));
  const { added, all } = state.takeChanges();
  assert.ok(all && added.length === 0);
});

/** The same rules, written without regard to cost: one map of rows for each host. */
function naive(records) {
  const hosts = new Map();
  for (const one of records) {
    if (!hosts.has(one.host)) hosts.set(one.host, { rows: new Map(), arriving: null, head: "", had: false });
    const host = hosts.get(one.host);
    const key = `${one.pid}/${one.inode}`;
    if (one.event === "hello" || one.event === "lost") host.arriving = null;
    else if (one.event === "snapshot") {
      const head = `${one.seq}/${one.time}`;
      if (host.arriving === null || host.head !== head) {
        host.arriving = new Map();
        host.head = head;
        if (!host.had) host.rows = host.arriving;
      }
      host.arriving.set(one.inode ? key : `none${host.arriving.size}`, [one, null]);
    } else if (one.event === "snapshot_end") {
      const after = host.arriving ?? new Map();
      if (after !== host.rows) {
        for (const [name, value] of after) {
          const was = host.rows.get(name);
          if (was && was[0].start_time === value[0].start_time) value[1] = was[1];
        }
      }
      host.rows = after;
      host.arriving = null;
      host.had = true;
    } else if (one.inode && one.event === "close") host.rows.delete(key);
    else if (one.inode) {
      host.rows.set(key, [one, one.event === "open" ? Date.parse(one.time) : host.rows.get(key)?.[1] ?? null]);
    }
  }
  return [...hosts].flatMap(([host, { rows }]) =>
    [...rows.values()].map(([record, since]) => JSON.stringify([host, record.pid, record.inode, record.seq, since])),
  ).sort();
}

/** A stream of some hosts that has snapshots, changes, losses and cuts in any order. */
function stream(next) {
  const records = [];
  const pick = (values) => values[Math.floor(next() * values.length)];
  for (let seq = 1; seq < 60; seq += 1) {
    const host = pick(["a", "b"]);
    const kind = next();
    const some = (event) => tcp(event, seq, pick([7, 8, null]), pick([1, 2, 3, 4, null]), {
      host, start_time: pick([at(0), at(1)]), state: pick(["ESTABLISHED", "CLOSE_WAIT", "LISTEN"]),
      direction: pick(["inbound", "outbound", "listen", null]),
    });
    if (kind < 0.1) records.push(hello(seq, { host, resumed: next() < 0.5 }));
    else if (kind < 0.15) records.push(lost(seq, seq, seq, host));
    else if (kind < 0.35) {
      const count = Math.floor(next() * 5);
      for (let i = 0; i < count; i += 1) records.push(some("snapshot"));
      if (next() < 0.7) records.push(end(seq, count, host));
    } else records.push(some(pick(["open", "open", "update", "close"])));
  }
  return records;
}

test("the rows, the counts and the changes are those of a naive fold, for any stream", () => {
  for (let seed = 0; seed < 400; seed += 1) {
    const next = random(seed);
    const records = stream(next);
    const state = new State();
    const copy = new Map();
    for (const one of records) {
      state.apply(one);
      if (next() < 0.2) follow(copy, state);
    }
    follow(copy, state);
    const rows = [...state.rows.values()];
    assert.deepEqual(
      rows.map(({ record, since }) => JSON.stringify([record.host, record.pid, record.inode, record.seq, since])).sort(),
      naive(records), `seed ${seed}`,
    );
    assert.deepEqual(
      [...copy].sort(), [...state.rows].map(([key, row]) => [key, row.record]).sort(), `seed ${seed}`,
    );
    const many = (test) => rows.filter((row) => test(row.record)).length;
    assert.deepEqual(state.counts, {
      total: rows.length,
      listen: many((one) => one.direction === "listen"),
      inbound: many((one) => one.direction === "inbound"),
      outbound: many((one) => one.direction === "outbound"),
      closeWait: many((one) => one.state === "CLOSE_WAIT"),
    });
  }
});

/** Apply the changes to a copy, as a view does. */
function follow(copy, state) {
  const { added, updated, removed, all } = state.takeChanges();
  if (all) {
    copy.clear();
    for (const row of state.rows.values()) copy.set(row.key, row.record);
    return;
  }
  for (const key of removed) assert.ok(copy.delete(key));
  for (const row of added) {
    assert.ok(!copy.has(row.key));
    copy.set(row.key, row.record);
  }
  for (const row of updated) {
    assert.ok(copy.has(row.key));
    copy.set(row.key, row.record);
  }
}

test("a host is whole when its first snapshot is there, or when it has changes only", () => {
  const state = new State();
  const whole = (...records) => {
    for (const one of records) state.apply(one);
    return [...state.wholeHosts()];
  };
  assert.deepEqual(whole(hello(1)), []);
  assert.deepEqual(whole(tcp("snapshot", 1, 7, 1)), []);
  assert.deepEqual(whole(end(1, 1)), ["web1"]);
  assert.deepEqual(whole(lost(9, 3, 9), tcp("snapshot", 9, 7, 2)), ["web1"]);
  assert.deepEqual(whole(tcp("open", 2, 7, 3, { host: "web2" })), ["web1", "web2"]);
});
