import assert from "node:assert/strict";
import { test } from "node:test";

import {
  countWords, flatten, NO_UNIT, NOT_SEEN, placeOf, socketTexts, Tree, words,
} from "../../agent/publish/page/tree.js";

/** @param {object} fields @returns {any} */
function row(fields) {
  const record = {
    event: "open", host: "web1", proto: "tcp", family: "inet", state: "ESTABLISHED", inode: 1,
    local_addr: "10.0.0.4", local_port: 443, remote_addr: "10.0.0.9", remote_port: 5,
    direction: "inbound", pid: 812, comm: "nginx", unit: "web.service", container: null, ...fields,
  };
  return { key: `${record.host} ${record.pid} ${record.inode}`, record, since: null, changed: 0 };
}

/** @param {any[]} rows */
function buildTree(rows) {
  const tree = new Tree();
  for (const one of rows) tree.add(one);
  return tree.branches();
}

test("sockets are under their process and unit, and counted", () => {
  const [branch, ...more] = buildTree([
    row({ inode: 1, state: "LISTEN", direction: "listen", remote_addr: null }),
    row({ inode: 2 }), row({ inode: 3, direction: "outbound", state: "CLOSE_WAIT" }),
    row({ inode: 4, proto: "unix", family: "unix", direction: null }),
  ]);
  assert.deepEqual(more, []);
  assert.equal(branch.label, "web.service");
  assert.deepEqual(branch.counts, { total: 4, listen: 1, inbound: 1, outbound: 1, closeWait: 1 });
  assert.equal(countWords(branch.counts), "1 listen, 1 in, 1 out, 1 CLOSE_WAIT");
  assert.deepEqual(branch.words, ["unit=web.service"]);
  assert.equal(branch.children[0].label, "nginx[812]");
  assert.deepEqual(branch.children[0].words, ["pid=812"]);
  assert.equal(branch.children[0].rows.length, 4);
});

test("a socket of several processes counts once for the unit and once for each process", () => {
  const [branch] = buildTree([row({ pid: 1 }), row({ pid: 2 }), row({ pid: 2, inode: null })]);
  assert.equal(branch.counts.total, 2);
  assert.deepEqual(branch.children.map((child) => child.counts.total), [1, 2]);
});

test("branches are sorted by name with numbers by value; what has no unit comes last", () => {
  const labels = buildTree([
    row({ unit: null, pid: null, comm: undefined }), row({ unit: null }), row({ unit: "b10" }),
    row({ unit: "b9" }), row({ container: "abcdef0123456789abcdef0123456789" }),
  ]).map((branch) => branch.label);
  assert.deepEqual(labels, ["abcdef012345", "b9", "b10", NO_UNIT, NOT_SEEN]);
});

test("several hosts are branches", () => {
  const hosts = buildTree([row({}), row({ host: "db1" })]);
  assert.deepEqual(hosts.map((branch) => [branch.kind, branch.label, branch.children.length]),
    [["host", "db1", 1], ["host", "web1", 1]]);
});

test("only unfolded branches have lines", () => {
  const tree = buildTree([row({ inode: 1 }), row({ inode: 2, pid: 813 })]);
  const unit = tree[0];
  assert.equal(flatten(tree, new Set()).length, 1);
  const some = flatten(tree, new Set([unit.id]));
  assert.deepEqual(some.map((item) => [item.level, item.position, item.size, item.expanded]),
    [[1, 1, 1, true], [2, 1, 2, false], [2, 2, 2, false]]);
  const all = flatten(tree, new Set([unit.id, ...unit.children.map((child) => child.id)]));
  assert.equal(all.length, 5);
  assert.deepEqual([all[2].row, all[2].level, all[2].expanded], [unit.children[0].rows[0], 3, null]);
  assert.equal(new Set(all.map((item) => item.id)).size, 5);
});

test("sockets are in a stable order, listeners first", () => {
  const rows = [
    row({ inode: 1, direction: "outbound", local_port: 9 }), row({ inode: 2, local_port: 1000 }),
    row({ inode: 3, local_port: 80 }), row({ inode: 4, state: "LISTEN", remote_addr: null }),
  ];
  const tree = buildTree(rows);
  const open = new Set([tree[0].id, tree[0].children[0].id]);
  const inodes = flatten(tree, open).flatMap((item) => item.row?.record.inode ?? []);
  assert.deepEqual(inodes, [4, 3, 2, 1]);
});

test("a value that is not one word is no filter", () => {
  assert.deepEqual(words("comm", "nginx"), ["comm=nginx"]);
  for (const bad of ["", "Web Content", "a,b", "a*", "[x]"]) assert.deepEqual(words("comm", bad), []);
});

test("the texts of a socket and of a place are safe", () => {
  assert.equal(placeOf(row({ unit: "a\u202e" }).record).label, "a\\x{202e}");
  assert.deepEqual(socketTexts(row({}).record),
    { proto: "tcp", way: "in", ends: "10.0.0.9:5 → 10.0.0.4:443", state: "ESTABLISHED" });
});
