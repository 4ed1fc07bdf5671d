// The map: who calls, the processes of each host, and what they call, in an order that stays. Pure.

import { arrange } from "./arrange.js";
import { count, counted, safe } from "./text.js";

/** @typedef {import("./graph.js").GraphNode} GraphNode */
/** @typedef {import("./graph.js").GraphEdge} GraphEdge @typedef {import("./graph.js").Side} Side */
/** @typedef {import("./state.js").Row} Row */
/**
 * A box of the map. `gone`: it has ended, and its place is kept for some seconds.
 * @typedef {object} MapNode
 * @property {string} id
 * @property {Side} side
 * @property {string} label
 * @property {string} note
 * @property {number} count connections
 * @property {number[]} listens ports on which it waits for callers
 * @property {number} closeWait sockets in CLOSE_WAIT
 * @property {number} folded how many nodes are in this one, 0 if it is none of "others"
 * @property {boolean} gone
 * @property {string[]} words a filter that selects it; empty if there is none
 */
/**
 * A line of the map. `dashed`: it is ambiguous whose the other end is.
 * @typedef {object} MapEdge
 * @property {string} id
 * @property {string} from
 * @property {string} to
 * @property {number} count
 * @property {number} closeWait
 * @property {boolean} dashed
 * @property {string[]} words
 */
/**
 * `row` is a socket that led to a node whose host has no agent.
 * @typedef {{node: MapNode, column: string, row: Row | null, seen: number}} Seen
 */
/** @typedef {{id: string, side: Side, title: string, nodes: MapNode[]}} MapColumn */
/** @typedef {{columns: MapColumn[], edges: MapEdge[], processes: number}} MapPicture */

// The busiest of the callers and of what is called, and of the processes of a host.
export const MAX_ENDS = 8;
export const MAX_UNITS = 12;
// Connections that are made each few seconds would else come and go.
const LINGER_MS = 10_000;
// For so long the order of a set of hosts may change: their rows arrive one host after the other.
const SETTLE_MS = 10_000;
// Services that are called by others of the same host are shown beside them, not below.
const CALLED = "\0called";

/** Makes pictures of rows, each in the order of the one before. */
export class MapModel {
  constructor() {
    /** The ids of each column. @type {Map<string, string[]>} */
    this._orders = new Map();
    /** Nodes and when they were last there. @type {Map<string, Seen>} */
    this._seen = new Map();
    /** Units that are shown as called ones. @type {Set<string>} */
    this._called = new Set();
    /** @type {string[]} */
    this._hosts = [];
    this._settled = 0;
  }

  /**
   * Return the picture of the nodes of rows at a time.
   * @param {GraphNode[]} graph
   * @param {number} now in ms
   * @param {boolean} all whether all units are shown
   * @param {ReadonlyMap<string, Row>} rows what is open
   * @returns {MapPicture}
   */
  update(graph, now, all, rows) {
    // A socket that is open led to this node until its other end was found.
    for (const [id, { row }] of this._seen) {
      if (row !== null && rows.get(row.key) === row) this._seen.delete(id);
    }
    const hosts = this._order(graph, now);
    if (hosts.length === 1) this._findCalled(graph);
    /** @type {Map<string, Map<string, GraphNode>>} */
    const columns = new Map([["callers", new Map()]]);
    for (const host of hosts) {
      columns.set(host, new Map());
      if (hosts.length === 1) columns.set(CALLED, new Map());
    }
    columns.set("callees", new Map());
    for (const node of graph) {
      let column = node.host || node.side;
      if (hosts.length === 1 && this._called.has(node.id)) column = CALLED;
      columns.get(column)?.set(node.id, node);
    }
    /** Where each node is drawn. @type {Map<GraphNode, string>} */
    const drawn = new Map();
    /** @type {MapColumn[]} */
    const shown = [];
    for (const [id, nodes] of columns) {
      const side = id === "callers" || id === "callees" ? id : "here";
      const list = this._column(id, side, nodes, drawn, now, all);
      if (id !== CALLED || list.length) shown.push({ id, side, title: title(id, hosts), nodes: list });
    }
    const processes = graph.reduce((sum, node) => sum + node.pids.size, 0);
    return { columns: shown, edges: edgesOf(graph, drawn, hosts.length > 1), processes };
  }

  /** Return the hosts, those that call before those that are called. @param {GraphNode[]} graph
   * @param {number} now */
  _order(graph, now) {
    const names = new Set(graph.filter((node) => node.host).map((node) => node.host));
    const isSame = names.size === this._hosts.length && this._hosts.every((host) => names.has(host));
    if (!isSame) this._settled = now + SETTLE_MS;
    if (isSame && now >= this._settled) return this._hosts;
    /** Connections by the calling and the called host. @type {Map<string, number>} */
    const calls = new Map();
    for (const node of graph) {
      for (const { to, count: connections } of node.calls.values()) {
        const key = `${node.host}\0${to.host}`;
        calls.set(key, (calls.get(key) ?? 0) + connections);
      }
    }
    this._hosts = inOrder([...names].sort(), calls);
    return this._hosts;
  }

  /** Note which units are rather called by other units than callers of them. One stays what it
   * is until the opposite is plain. @param {GraphNode[]} graph */
  _findCalled(graph) {
    /** @type {Set<GraphNode>} */
    const called = new Set();
    const units = graph.filter((node) => node.side === "here");
    for (const node of units) {
      for (const to of node.calls.keys()) if (to !== node && to.side === "here") called.add(to);
    }
    for (const node of units) {
      const calls = [...node.calls.keys()].some((to) => to !== node && to.side === "here");
      if (called.has(node) && !calls) this._called.add(node.id);
      else if (calls && !called.has(node)) this._called.delete(node.id);
    }
  }

  /** @param {string} column @param {Side} side @param {Map<string, GraphNode>} nodes
   * @param {Map<GraphNode, string>} drawn @param {number} now @param {boolean} all
   * @returns {MapNode[]} */
  _column(column, side, nodes, drawn, now, all) {
    const weights = new Map([...nodes].map(([id, node]) => [id, node.connections]));
    for (const [id, seen] of this._seen) {
      if (seen.column !== column || weights.has(id)) continue;
      if (now - seen.seen < LINGER_MS) weights.set(id, -1);
      else this._seen.delete(id);
    }
    const limit = side !== "here" ? MAX_ENDS : all ? Infinity : MAX_UNITS;
    const order = arrange(this._orders.get(column) ?? [], weights, limit);
    this._orders.set(column, order);
    const list = order.map((id) => {
      const node = nodes.get(id);
      const was = this._seen.get(id);
      if (node === undefined && was !== undefined) {
        return { ...was.node, count: 0, listens: [], closeWait: 0, gone: true };
      }
      const made = mapNode(/** @type {GraphNode} */ (node), this._hosts.length > 1);
      this._seen.set(id, { node: made, column, row: nodes.get(id)?.row ?? null, seen: now });
      return made;
    });
    const picked = new Set(order);
    const rest = [...nodes.values()].filter((node) => !picked.has(node.id));
    for (const id of order) {
      const node = nodes.get(id);
      if (node) drawn.set(node, id);
    }
    if (rest.length === 0) return list;
    const id = `${column}\0others`;
    for (const node of rest) drawn.set(node, id);
    return [...list, others(id, side, rest, list)];
  }
}

/**
 * Return hosts so that few connections lead back: those that nobody calls first, those that call
 * nobody last, and in a circle the one first that calls more than it is called.
 * @param {string[]} hosts
 * @param {Map<string, number>} calls connections by the calling and the called host
 */
function inOrder(hosts, calls) {
  const left = [...hosts];
  /** @type {string[]} */
  const first = [];
  /** @type {string[]} */
  const last = [];
  /** @param {string} host @param {boolean} isCaller */
  const sum = (host, isCaller) => left.reduce((total, other) => other === host ? total :
    total + (calls.get(isCaller ? `${host}\0${other}` : `${other}\0${host}`) ?? 0), 0);
  while (left.length) {
    const source = left.findIndex((host) => sum(host, true) > 0 && sum(host, false) === 0);
    if (source >= 0) {
      first.push(...left.splice(source, 1));
      continue;
    }
    const sinks = left.filter((host) => sum(host, true) === 0);
    if (sinks.length) {
      last.unshift(...left.splice(left.lastIndexOf(sinks[sinks.length - 1]), 1));
      continue;
    }
    const surplus = left.map((host) => sum(host, true) - sum(host, false));
    first.push(...left.splice(surplus.indexOf(Math.max(...surplus)), 1));
  }
  return [...first, ...last];
}

/** @param {GraphNode} node @param {boolean} several @returns {MapNode} */
function mapNode(node, several) {
  return {
    id: node.id, side: node.side, ...node.texts(several), count: node.connections,
    listens: [...node.listens].sort((one, two) => one - two), closeWait: node.closeWait,
    folded: 0, gone: false,
  };
}

/**
 * Return the node of all that are not shown.
 * @param {string} id
 * @param {Side} side
 * @param {GraphNode[]} nodes
 * @param {MapNode[]} shown
 * @returns {MapNode}
 */
function others(id, side, nodes, shown) {
  /** @param {"connections" | "closeWait"} field */
  const sum = (field) => nodes.reduce((total, node) => total + node[field], 0);
  // What the nodes that are shown have in common is what the others have not.
  const addresses = shown.flatMap((node) => node.words.filter((word) => word.startsWith("addr=")));
  const excluded = addresses.map((word) => word.slice("addr=".length)).join(",");
  return {
    id, side, label: "others", count: sum("connections"), listens: [],
    closeWait: sum("closeWait"), folded: nodes.length, gone: false,
    note: side === "here" ? counted(nodes.length, "unit")
      : counted(nodes.length, side === "callers" ? "network" : "service"),
    words: side === "callers" && excluded ? ["direction=inbound", `addr!=${excluded}`] : [],
  };
}

/** @param {string} column @param {string[]} hosts */
function title(column, hosts) {
  if (column === "callers") return "who calls";
  if (column === "callees") return "what they call";
  if (column === CALLED) return "called by processes here";
  return hosts.length === 1 ? "processes here" : safe(column);
}

/**
 * Return the edges between the nodes as they are drawn.
 * @param {GraphNode[]} graph
 * @param {Map<GraphNode, string>} drawn
 * @param {boolean} several whether there are several hosts
 * @returns {MapEdge[]}
 */
function edgesOf(graph, drawn, several) {
  /** @type {Map<string, MapEdge>} */
  const edges = new Map();
  for (const node of graph) {
    for (const edge of [...node.calls.values(), ...node.guesses.values()]) {
      const from = drawn.get(edge.from);
      const to = drawn.get(edge.to);
      if (from === undefined || to === undefined) continue;
      const id = `${from}\0${to}\0${edge.ambiguous ? 1 : 0}`;
      const known = edges.get(id);
      if (known !== undefined) {
        known.count += edge.count;
        known.closeWait += edge.closeWait;
        known.words = [];
        continue;
      }
      const { count: connections, closeWait, ambiguous: dashed } = edge;
      const isWhole = from === edge.from.id && to === edge.to.id;
      const filter = isWhole ? edgeWords(edge, several) : [];
      edges.set(id, { id, from, to, count: connections, closeWait, dashed, words: filter });
    }
  }
  return [...edges.values()];
}

/** Return a filter that selects the connections of an edge, at the calling end if it is here.
 * @param {GraphEdge} edge @param {boolean} several */
function edgeWords(edge, several) {
  const { from, to } = edge;
  const isCaller = from.side === "here";
  const here = (isCaller ? from : to).texts(several).words;
  if (here.length === 0) return [];
  const there = isCaller && to.side === "here" ? [] : (isCaller ? to : from).texts(several).words;
  const filter = [...here, ...there];
  if (edge.directed) filter.push(`direction=${isCaller ? "outbound" : "inbound"}`);
  if (to.side === "here" && edge.ports.size) {
    filter.push(`port=${[...edge.ports].sort((one, two) => one - two).join(",")}`);
  }
  return filter;
}

/** Return what an edge is in words: `60 connections, 13 of them CLOSE_WAIT`. @param {MapEdge} edge */
export function edgeText(edge) {
  const bad = edge.closeWait ? `, ${count(edge.closeWait)} in CLOSE_WAIT` : "";
  return `${counted(edge.count, "connection")}${bad}${edge.dashed ? ", ambiguous" : ""}`;
}
