import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { COLUMNS, sortRows } from "../../agent/publish/page/columns.js";
import { LINGER, Order } from "../../agent/publish/page/order.js";

const CONTEXT = { now: 0, peerOf: () => null };
const NOTHING = { added: [], updated: [], removed: [], all: false };

const row = (key, comm) => ({ key, record: { pid: 1, comm, host: "h" }, since: null, changed: 0 });
const keys = (order) => order.entries.map((entry) => entry.row.key).join("");

function filled(names) {
  const rows = new Map(Object.entries(names).map(([key, comm]) => [key, row(key, comm)]));
  const order = new Order(COLUMNS.get("process"), false);
  order.take({ ...NOTHING, all: true }, rows, 0);
  assert.ok(order.settle(0, CONTEXT));
  return { rows, order };
}

test("rows count before they are in order, and until they are gone", () => {
  const order = new Order(COLUMNS.get("process"), false);
  assert.equal(order.size, 0);
  order.take({ ...NOTHING, added: [row("a", "x")] }, new Map(), 0);
  assert.deepEqual([order.size, order.entries.length], [1, 0]);
  order.settle(0, CONTEXT);
  order.take({ ...NOTHING, removed: ["a"] }, new Map(), 0);
  assert.equal(order.size, 1);
  order.settle(LINGER, CONTEXT);
  assert.deepEqual([order.size, order.entries.length], [0, 0]);
});

for (const id of ["process", "peer"]) {
  test(`rows that are gone are not kept in memory (${id})`, () => {
    setFlagsFromString("--expose-gc");
    const gc = runInNewContext("gc");
    const order = new Order(COLUMNS.get(id), false);
    order.take({ ...NOTHING, all: true }, new Map(), 0);
    const seen = [];
    for (let now = 0; now < 100; now += 1) {
      const name = String(now);
      const added = [row(name, "x")];
      seen.push(new WeakRef(added[0]));
      order.take({ ...NOTHING, added, removed: [String(now - 1)] }, new Map(), now * LINGER);
      order.settle(now * LINGER, CONTEXT);
    }
    return new Promise((done) => setTimeout(done)).then(() => {
      gc();
      const kept = seen.flatMap((one) => one.deref()?.key ?? []);
      assert.deepEqual(kept, order.entries.map((entry) => entry.row.key));
      assert.equal(kept.length, 2); // One has closed just now, and one is open.
    });
  });
}

test("the order changes when it settles, and only if something moved", () => {
  const { order } = filled({ a: "x", b: "w", c: "x" });
  assert.equal(keys(order), "bac");
  assert.equal(order.settle(0, CONTEXT), false);
  order.take({ ...NOTHING, added: [row("d", "w"), row("e", "a")] }, new Map(), 0);
  assert.equal(keys(order), "bac");
  assert.ok(order.settle(0, CONTEXT));
  assert.equal(keys(order), "ebdac");
});

test("an updated row moves only if its value changed", () => {
  const { order, rows } = filled({ a: "x", b: "w" });
  const b = rows.get("b");
  order.take({ ...NOTHING, updated: [b] }, rows, 0);
  assert.equal(order.settle(0, CONTEXT), false);
  b.record = { ...b.record, comm: "z" };
  order.take({ ...NOTHING, updated: [b] }, rows, 0);
  assert.ok(order.settle(0, CONTEXT));
  assert.equal(keys(order), "ab");
});

test("a closed row stays for a while, and is open again if its key comes back", () => {
  const { order } = filled({ a: "x", b: "w" });
  order.take({ ...NOTHING, removed: ["a", "b"] }, new Map(), 100);
  assert.equal(order.settle(100 + LINGER - 1, CONTEXT), false);
  assert.equal(order.get("a").closedAt, 100);
  order.take({ ...NOTHING, added: [row("a", "x")] }, new Map(), 200);
  assert.equal(order.get("a").closedAt, null);
  assert.ok(order.settle(100 + LINGER, CONTEXT));
  assert.equal(keys(order), "a");
  assert.equal(order.get("b"), undefined);
});

test("a row that closed before it was listed is never shown", () => {
  const { order } = filled({ a: "x" });
  order.take({ ...NOTHING, added: [row("b", "w")] }, new Map(), 0);
  order.take({ ...NOTHING, removed: ["b"] }, new Map(), 0);
  assert.equal(order.settle(0, CONTEXT), false);
  assert.equal(keys(order), "a");
});

test("a burst of closes does not fill the table", () => {
  const names = Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`k${i}`, "x"]));
  const { order } = filled(names);
  order.take({ ...NOTHING, removed: Object.keys(names) }, new Map(), 0);
  assert.ok(order.settle(0, CONTEXT));
  assert.equal(order.entries.length, 2000);
});

test("another column keeps the order of rows with equal values", () => {
  const { order } = filled({ a: "x", b: "w", c: "v" });
  order.sortBy(COLUMNS.get("proto"), false);
  assert.ok(order.settle(0, CONTEXT));
  assert.equal(keys(order), "cba");
  order.sortBy(COLUMNS.get("process"), true);
  order.settle(0, CONTEXT);
  assert.equal(keys(order), "abc");
});

test("all rows anew: known entries stay the same objects, others go", () => {
  const { order, rows } = filled({ a: "x", b: "w" });
  const known = order.get("a");
  rows.delete("b");
  rows.set("c", row("c", "a"));
  order.take({ ...NOTHING, all: true }, rows, 0);
  assert.ok(order.settle(0, CONTEXT));
  assert.equal(keys(order), "ca");
  assert.equal(order.get("a"), known);
});

test("a joined column is looked at anew, because peers change without their rows", () => {
  const rows = new Map(["a", "b"].map((key) => [key, row(key, key)]));
  const order = new Order(COLUMNS.get("peer"), false);
  const names = new Map([["a", "x"], ["b", "y"]]);
  const context = { now: 0, peerOf: (one) => row("", names.get(one.key)) };
  order.take({ ...NOTHING, all: true }, rows, 0);
  order.settle(0, context);
  assert.equal(keys(order), "ab");
  names.set("a", "z");
  assert.ok(order.settle(0, context));
  assert.equal(keys(order), "ba");
  assert.equal(order.settle(0, context), false);
});

test("all entries of a joined column are looked at in turn", () => {
  const names = Array.from({ length: 12_000 }, (_, index) => String(index).padStart(5, "0"));
  const rows = new Map(names.map((key) => [key, row(key, "x")]));
  const order = new Order(COLUMNS.get("peer"), false);
  let pidOf = (key) => Number(key);
  const peerOf = ({ key, record }) => ({ ...row(key, "x"), record: { ...record, pid: pidOf(key) } });
  const context = { now: 0, peerOf };
  order.take({ ...NOTHING, all: true }, rows, 0);
  order.settle(0, context);
  assert.equal(order.entries[0].row.key, "00000");
  pidOf = (key) => 20_000 - Number(key);
  for (let turn = 0; turn < 6; turn++) order.settle(0, context);
  assert.deepEqual(order.entries.map((entry) => entry.row.key), [...names].reverse());
});

test("changes lead to the same order as a sort of all rows", () => {
  let seed = 1;
  const random = (limit) => (seed = (seed * 48271) % 2147483647) % limit;
  const { order, rows } = filled({});
  for (let step = 1; step <= 300; step++) {
    const changes = { added: [], updated: [], removed: [], all: false };
    for (let change = random(20); change > 0; change--) {
      const key = `k${random(60)}`;
      const known = rows.get(key);
      if (known !== undefined && changes.added.includes(known)) continue;
      if (known === undefined && !changes.removed.includes(key)) {
        rows.set(key, row(key, `c${random(9)}`));
        changes.added.push(rows.get(key));
      } else if (known !== undefined && random(2)) {
        known.record = { ...known.record, comm: `c${random(9)}` };
        if (!changes.updated.includes(known)) changes.updated.push(known);
      } else if (known !== undefined) {
        rows.delete(key);
        changes.updated = changes.updated.filter((one) => one !== known);
        changes.removed.push(key);
      }
    }
    order.take(changes, rows, step * 300);
    if (random(3) === 0) order.settle(step * 300, CONTEXT);
    assert.equal(new Set(order.entries).size, order.entries.length);
    if (random(4) === 0) {
      order.settle(step * 300, CONTEXT);
      const shown = order.entries.filter((entry) => entry.closedAt === null);
      assert.deepEqual(new Set(shown.map((entry) => entry.row)), new Set(rows.values()));
      const shownRows = shown.map((entry) => entry.row);
      assert.deepEqual(sortRows(shownRows, order.column, false, CONTEXT), shownRows);
    }
  }
});

test("only the rows that are wanted have entries, the others when they are wanted", () => {
  const { order, rows } = filled({ a: "x", b: "unix" });
  order.listOnly(({ record }) => record.comm !== "unix");
  order.take({ ...NOTHING, all: true }, rows, 0);
  assert.ok(order.settle(0, CONTEXT));
  assert.equal(keys(order), "a");
  rows.set("c", row("c", "unix"));
  order.take({ ...NOTHING, added: [rows.get("c"), row("d", "w")], updated: [rows.get("b")] }, rows, 0);
  order.take({ ...NOTHING, removed: ["b"] }, rows, 0);
  assert.ok(order.settle(0, CONTEXT));
  assert.equal(keys(order), "da");
  rows.delete("b");
  order.listOnly(() => true);
  order.take({ ...NOTHING, all: true }, rows, 0);
  order.settle(0, CONTEXT);
  assert.equal(keys(order), "ca");
});
