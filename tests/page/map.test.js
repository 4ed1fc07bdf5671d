import assert from "node:assert/strict";
import { test } from "node:test";

import { arrange } from "../../agent/publish/page/arrange.js";
import { buildGraph } from "../../agent/publish/page/graph.js";
import { edgeText, MapModel, MAX_ENDS, MAX_UNITS } from "../../agent/publish/page/map.js";
import { networkOf } from "../../agent/publish/page/networks.js";
import { Peers } from "../../agent/publish/page/peers.js";
import { REPORT_MS, Unmatched } from "../../agent/publish/page/unmatched.js";
import { random } from "./make.js";

let inode = 0;

/** @param {object} fields @returns {any} */
function row(fields) {
  inode += 1;
  const record = {
    event: "open", host: "web1", proto: "tcp", family: "inet", state: "ESTABLISHED", netns: 1,
    local_addr: "10.0.0.4", local_port: 443, remote_addr: "192.0.2.9", remote_port: inode,
    direction: "inbound", inode, pid: 812, comm: "nginx", unit: "web.service", container: null,
    start_time: "2026", ...fields,
  };
  return { key: `${record.host}\0${record.pid}\0${record.inode}`, record, since: null, changed: 0 };
}

/** Both ends of a connection within a host. @param {object} caller @param {object} called */
function pair(caller, called, port = 8080) {
  const from = 40_000 + inode;
  const here = { local_addr: "127.0.0.1", remote_addr: "127.0.0.1" };
  return [
    row({ ...here, local_port: from, remote_port: port, direction: "outbound", ...caller }),
    row({ ...here, local_port: port, remote_port: from, direction: "inbound", ...called }),
  ];
}

const SHOP = { pid: 1201, comm: "gunicorn", unit: "shop.service" };

/** @param {any[]} rows */
const picture = (rows, model = new MapModel(), now = 0,
  { unix = false, all = false, joined = rows } = {}) =>
  model.update(buildGraph(rows, new Peers(joined), unix), now, all,
    new Map(rows.map((row) => [row.key, row])));
/** @param {any} drawn */
const columns = (drawn) => drawn.columns.map((/** @type {any} */ column) =>
  [column.title, ...column.nodes.map((/** @type {any} */ node) => node.label)]);

test("an address of a recording that is no address stays readable", () => {
  const drawn = picture([row({ remote_addr: "\x1b[31m\u202e" })]);
  assert.ok(columns(drawn).flat().includes(String.raw`\x1b[31m\x{202e}`));
});

test("networks are /24 and /64", () => {
  assert.equal(networkOf("192.0.2.9"), "192.0.2.0/24");
  assert.equal(networkOf("::ffff:192.0.2.9"), "192.0.2.0/24");
  assert.equal(networkOf("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
  assert.equal(networkOf("2001:db8::1"), "2001:db8::/64");
  assert.equal(networkOf("fe80::1:2:3:4"), "fe80::/64");
  assert.equal(networkOf("1:2:3::4:5:6:7"), "1:2:3::/64");
  assert.equal(networkOf("127.0.0.53"), "loopback");
  assert.equal(networkOf("::1"), "loopback");
});

test("addresses that are none are shown safely", () => {
  const drawn = picture([row({ remote_addr: "\x1b[31m\u202e" })]);
  assert.deepEqual(columns(drawn)[0], ["who calls", "\\x1b[31m\\x{202e}"]);
});

test("callers, processes and what they call are in three columns", () => {
  const drawn = picture([
    row({}), row({ remote_addr: "192.0.2.8" }), row({ direction: "listen", state: "LISTEN", remote_addr: null }),
    row({ direction: "outbound", local_port: 5, remote_addr: "198.51.100.7", remote_port: 5432 }),
  ]);
  assert.deepEqual(columns(drawn), [
    ["who calls", "192.0.2.0/24"], ["processes here", "nginx[812]"],
    ["what they call", "198.51.100.7:5432"],
  ]);
  const [nginx] = drawn.columns[1].nodes;
  assert.deepEqual([nginx.note, nginx.count, nginx.listens], ["web.service", 3, [443]]);
  assert.equal(drawn.columns[0].nodes[0].note, "2 addresses");
  assert.deepEqual(drawn.edges.map((edge) => edge.words.join(" ")).sort(), [
    "unit=web.service addr=192.0.2.0/24 direction=inbound port=443",
    "unit=web.service addr=198.51.100.7 port=5432 direction=outbound",
  ]);
});

test("a connection of which both ends are here is one edge, red if either end waits", () => {
  const drawn = picture([...pair({}, { ...SHOP, state: "CLOSE_WAIT" }), ...pair({}, SHOP)]);
  assert.deepEqual(columns(drawn).slice(1, 3),
    [["processes here", "nginx[812]"], ["called by processes here", "gunicorn[1201]"]]);
  assert.equal(drawn.edges.length, 1);
  const [edge] = drawn.edges;
  assert.deepEqual([edge.count, edge.closeWait], [2, 1]);
  assert.deepEqual(edge.words, ["unit=web.service", "direction=outbound", "port=8080"]);
  assert.equal(edgeText(edge), "2 connections, 1 in CLOSE_WAIT");
});

test("two ends of UDP, which both call, count once", () => {
  const udp = { proto: "udp", direction: null };
  const drawn = picture(pair(udp, { ...SHOP, ...udp }));
  assert.deepEqual(drawn.edges.map((edge) => edge.count), [1]);
  assert.ok(!drawn.edges[0].words.some((word) => word.startsWith("direction=")));
});

test("a socket of several processes counts once", () => {
  const shared = { inode: 77, remote_port: 5 };
  const drawn = picture([row({ ...shared, pid: 1 }), row({ ...shared, pid: 2 })]);
  assert.equal(drawn.edges[0].count, 1);
  assert.equal(drawn.columns[1].nodes[0].note, "web.service, 2 processes");
  assert.equal(drawn.processes, 2);
});

test("processes without a unit are put together by name, and unknown ones apart", () => {
  const none = { unit: null };
  const drawn = picture([
    row({ ...none, pid: 1, comm: "a b" }), row({ ...none, pid: 2, comm: "a b" }),
    row({ ...none, pid: 3, comm: "c" }), row({ ...none, pid: null, comm: undefined }),
  ]);
  const nodes = drawn.columns[1].nodes;
  assert.deepEqual(nodes.map((node) => node.label).sort(), ["a b", "c[3]", "process not seen"]);
  assert.deepEqual(nodes.find((node) => node.label === "a b")?.words, ["pid=1,2"]);
  assert.deepEqual(nodes.find((node) => node.label === "c[3]")?.words, ["comm=c"]);
});

test("only the busiest ends are shown, the rest are others, and no connection is lost", () => {
  const rows = Array.from({ length: 30 }, (_, net) =>
    Array.from({ length: net + 1 }, () => row({ remote_addr: `192.0.${net}.1` }))).flat();
  const drawn = picture(rows);
  const callers = drawn.columns[0].nodes;
  assert.equal(callers.length, MAX_ENDS + 1);
  assert.equal(callers[0].label, "192.0.29.1");
  assert.deepEqual([callers[MAX_ENDS].label, callers[MAX_ENDS].folded], ["others", 22]);
  assert.equal(drawn.edges.reduce((sum, edge) => sum + edge.count, 0), rows.length);
  assert.match(callers[MAX_ENDS].words[1], /^addr!=192\.0\.29\.1,192/);
});

test("one more than the limit is shown itself", () => {
  const rows = Array.from({ length: MAX_UNITS + 1 }, (_, pid) => row({ unit: `${pid}.service`, pid }));
  assert.equal(picture(rows).columns[1].nodes.length, MAX_UNITS + 1);
  const more = [...rows, row({ unit: "x.service", pid: 99 })];
  assert.equal(picture(more).columns[1].nodes.length, MAX_UNITS + 1);
  assert.equal(picture(more).columns[1].nodes[MAX_UNITS].folded, 2);
  assert.equal(picture(more, new MapModel(), 0, { all: true }).columns[1].nodes.length, MAX_UNITS + 2);
});

test("hosts have a column each, joined where exactly one other host fits", () => {
  const one = row({ direction: "outbound", local_port: 9, remote_addr: "10.0.0.5", remote_port: 80 });
  const two = row({ ...SHOP, host: "db1", local_addr: "10.0.0.5", local_port: 80,
    remote_addr: "10.0.0.4", remote_port: 9 });
  const drawn = picture([one, two]);
  assert.deepEqual(columns(drawn), [["who calls"], ["web1", "nginx[812]"],
    ["db1", "gunicorn[1201]"], ["what they call"]]);
  assert.deepEqual(drawn.edges.map((edge) => [edge.count, edge.dashed]), [[1, false]]);
  const three = row({ ...two.record, host: "db2" });
  const unclear = picture([one, two, three]);
  assert.deepEqual(unclear.edges.map((edge) => edge.dashed), [true, true, true]);
});

test("unix sockets are edges only when they are asked for", () => {
  const unix = { proto: "unix", family: "unix", local_addr: undefined, remote_addr: undefined,
    type: "stream" };
  const rows = [
    row({ ...unix, inode: 9001, peer_inode: 9002, direction: "outbound" }),
    row({ ...unix, ...SHOP, inode: 9002, peer_inode: 9001, direction: "inbound" }),
  ];
  assert.equal(picture(rows).edges.length, 0);
  assert.equal(picture(rows, new MapModel(), 0, { unix: true }).edges.length, 1);
});

test("a small change moves nothing, a large one does", () => {
  const weights = new Map([["a", 10], ["b", 9], ["c", 1]]);
  const order = arrange([], weights, 2);
  assert.deepEqual(order, ["a", "b", "c"]);
  weights.set("b", 12);
  assert.deepEqual(arrange(order, weights, 2), ["a", "b", "c"]);
  weights.set("c", 40);
  assert.deepEqual(arrange(order, weights, 2), ["c", "a", "b"]);
  weights.set("d", 11);
  assert.deepEqual(arrange(["c", "a"], weights, 2), ["c", "a"]);
  weights.set("d", 100);
  assert.deepEqual(arrange(["c", "a"], weights, 2), ["d", "c"]);
});

test("what has ended makes room for any other node", () => {
  const weights = new Map([["gone", -1], ["a", 1], ["b", 1], ["c", 2]]);
  assert.deepEqual(arrange(["gone", "a"], weights, 2), ["c", "a"]);
  weights.delete("b");
  weights.delete("c");
  assert.deepEqual(arrange(["gone", "a"], weights, 2), ["gone", "a"]);
});

test("the order has each node once, and as many as fit", () => {
  const next = random(3);
  /** @type {string[]} */
  let order = [];
  for (let round = 0; round < 500; round += 1) {
    const weights = new Map();
    for (let id = 0; id < 12; id += 1) {
      if (next() < 0.7) weights.set(`${id}`, Math.floor(next() * 40));
    }
    const was = order;
    order = arrange(order, weights, 5);
    assert.equal(new Set(order).size, order.length);
    assert.equal(order.length, weights.size <= 6 ? weights.size : 5);
    assert.ok(order.every((id) => weights.has(id)));
    assert.deepEqual(arrange(order, weights, 5), order, `unstable after ${was}`);
  }
});

test("what ends keeps its place for some seconds", () => {
  const model = new MapModel();
  const rows = [row({}), row({ ...SHOP })];
  picture(rows, model, 0);
  const gone = picture(rows.slice(1), model, 5000).columns[1].nodes;
  assert.deepEqual(gone.map((node) => [node.label, node.gone, node.count]),
    [["gunicorn[1201]", false, 1], ["nginx[812]", true, 0]]);
  assert.equal(picture(rows.slice(1), model, 20_000).columns[1].nodes.length, 1);
});

test("an end that was single until its other end came has not ended", () => {
  const model = new MapModel();
  const [calling, called] = pair({}, SHOP);
  assert.deepEqual(columns(picture([calling], model)).at(-1), ["what they call", "loopback:8080"]);
  const drawn = picture([calling, called], model, 1000);
  assert.deepEqual(columns(drawn).flat().filter((label) => label.includes("loopback")), []);
  // Without a socket that leads to it, it has ended.
  const single = pair({}, {}, 9090)[0];
  picture([calling, called, single], model, 2000);
  const last = picture([calling, called], model, 3000).columns.at(-1)?.nodes;
  assert.deepEqual(last?.map(({ label, gone }) => [label, gone]), [["loopback:9090", true]]);
});

test("a socket of which the other end was not looked for yet is not drawn", () => {
  const known = pair({}, SHOP);
  const [calling, called] = pair({}, SHOP);
  const rows = [...known, calling, called];
  const { columns: drawn, edges } = picture(rows, new MapModel(), 0, { joined: known });
  assert.equal(drawn.find(({ side }) => side === "callees")?.nodes.length, 0);
  assert.deepEqual(edges.map((edge) => edge.count), [1]);
  assert.deepEqual(picture(rows).edges.map((edge) => edge.count), [2]);
});

/** Both ends of a connection from web to db. @param {object} [caller] @param {object} [called] */
function acrossPair(caller = {}, called = {}) {
  const port = 50_000 + inode;
  return [
    row({ host: "web", local_addr: "10.0.0.2", local_port: port, remote_addr: "10.0.0.4",
      remote_port: 5432, direction: "outbound", unit: null, ...caller }),
    row({ host: "db", local_addr: "10.0.0.4", local_port: 5432, remote_addr: "10.0.0.2",
      remote_port: port, pid: 9, comm: "postgres", unit: null, ...called }),
  ];
}

/** @param {any[]} rows @param {Unmatched} unmatched @param {number} now @returns {any} */
const across = (rows, unmatched, now) =>
  new MapModel().update(buildGraph(rows, new Peers(rows), false, unmatched, now), now, false,
    new Map(rows.map((one) => [one.key, one])));
/** @param {any} drawn */
const lines = (drawn) => drawn.edges.map((/** @type {any} */ edge) => [
  edge.from.replaceAll("\0", " "), edge.to.replaceAll("\0", " "), edge.count, edge.dashed]);

test("a connection that one of two hosts has not reported yet is not drawn to a network", () => {
  for (const index of [0, 1]) {
    const [joined, half] = [acrossPair(), acrossPair()[index]];
    const unmatched = new Unmatched();
    const both = ["web -nginx", "db -postgres", 1, false];
    for (const now of [0, REPORT_MS - 1]) {
      assert.deepEqual(lines(across([...joined, half], unmatched, now)), [both]);
    }
    // Not reported for long: the address is named, with its host.
    const drawn = across([...joined, half], unmatched, REPORT_MS);
    assert.equal(drawn.edges.length, 2);
    const ends = drawn.columns[index === 0 ? 3 : 0].nodes;
    assert.deepEqual(ends.map((/** @type {any} */ { label, note }) => [label, note]), [
      index === 0 ? ["10.0.0.4:5432", "db: not seen"] : ["10.0.0.2", "web: not seen"],
    ]);
  }
});

test("a connection that ends at one host first is not drawn to a network at once", () => {
  const [here, there] = acrossPair();
  const unmatched = new Unmatched();
  const other = acrossPair();
  across([here, there, ...other], unmatched, 0);
  across([here, there, ...other], unmatched, 10_000);
  assert.equal(across([here, ...other], unmatched, 11_000).edges.length, 1);
  assert.equal(across([here, there, ...other], unmatched, 12_000).edges[0].count, 2);
  assert.equal(across([here, ...other], unmatched, 11_000 + REPORT_MS).edges.length, 1);
});

test("ends at addresses without an agent, or of several hosts, are drawn at once", () => {
  const rows = [...acrossPair(), row({ host: "web", remote_addr: "192.0.2.9" })];
  assert.equal(across(rows, new Unmatched(), 0).edges.length, 2);
  // Two hosts have the address 172.17.0.1.
  const twice = [
    ...["a", "b"].map((host) => row({ host, local_addr: "172.17.0.1", remote_addr: "192.0.2.9" })),
    row({ host: "web", local_addr: "172.18.0.2", remote_addr: "172.17.0.1" }),
  ];
  assert.equal(across(twice, new Unmatched(), 0).edges.length, 3);
});

test("with several hosts a filter names the host", () => {
  const drawn = across(acrossPair(), new Unmatched(), 0);
  assert.deepEqual(drawn.columns[1].nodes[0].words, ["host=web", "comm=nginx"]);
  assert.deepEqual(drawn.edges[0].words,
    ["host=web", "comm=nginx", "direction=outbound", "port=5432"]);
});

/** Connections between hosts, each `count` times. @param {[string, string, number][]} calls */
function between(calls) {
  const address = (/** @type {string} */ host) => `10.0.1.${host.charCodeAt(0)}`;
  return calls.flatMap(([from, to, count]) => Array.from({ length: count }, () => acrossPair(
    { host: from, local_addr: address(from), remote_addr: address(to) },
    { host: to, local_addr: address(to), remote_addr: address(from) },
  )).flat());
}

/** @param {[string, string, number][]} calls */
const hostOrder = (calls) => across(between(calls), new Unmatched(), 0).columns
  .map((/** @type {any} */ { title }) => title).slice(1, -1).join(" ");

test("hosts that call stand before those that are called, however many the connections", () => {
  assert.equal(hostOrder([["w", "a", 1], ["a", "d", 3]]), "w a d");
  assert.equal(hostOrder([["w", "a", 3], ["a", "d", 1]]), "w a d");
  assert.equal(hostOrder([["w", "a", 1], ["a", "d", 3], ["x", "x", 1]]), "w a d x");
  // In a circle the fewest connections lead back.
  assert.equal(hostOrder([["w", "a", 5], ["a", "d", 5], ["d", "w", 1]]), "w a d");
});
