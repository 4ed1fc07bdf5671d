// Who calls whom: units and networks, and the connections between them. Pure.

import { LOOPBACK, networkOf } from "./networks.js";
import { isOlder, unmapped } from "./peers.js";
import { counted, listens, process, safe } from "./text.js";
import { placeOf, words } from "./tree.js";
import { Unmatched } from "./unmatched.js";

/** @typedef {import("./records.js").SocketRecord} SocketRecord */
/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./peers.js").Peers} Peers */
/** @typedef {"callers" | "here" | "callees"} Side */

// Pids and ports that a filter names at most: it is part of a URL.
const MAX_VALUES = 32;

/** A unit, container or name of processes of a host; or a network whose hosts have no agent. */
export class GraphNode {
  /** @param {string} id @param {Side} side @param {string} host */
  constructor(id, side, host) {
    this.id = id;
    this.side = side;
    this.host = host;
    this.connections = 0;
    this.closeWait = 0;
    /** Ports on which it waits for callers. @type {Set<number>} */
    this.listens = new Set();
    /** @type {Map<GraphNode, GraphEdge>} */
    this.calls = new Map();
    /** @type {Map<GraphNode, GraphEdge>} */
    this.guesses = new Map();
    /** @type {Set<string>} */
    this.names = new Set();
    /** @type {Set<number>} */
    this.pids = new Set();
    /** A record of it. @type {SocketRecord | null} */
    this.record = null;
    /** The newest of the sockets here that lead to it, if it is a network. @type {Row | null} */
    this.row = null;
    this.network = "";
    /** The host of a network that is one address of a host with an agent. */
    this.owner = "";
    /** @type {number | null} */
    this.port = null;
  }

  /** Return label, note and filter. @param {boolean} several whether there are other hosts
   * @returns {{label: string, note: string, words: string[]}} */
  texts(several) {
    if (this.side !== "here") return networkTexts(this);
    const texts = unitTexts(this);
    if (!several || texts.words.length === 0) return texts;
    const host = words("host", this.host);
    return { ...texts, words: host.length ? [...host, ...texts.words] : [] };
  }
}

/** The connections from a node to another. */
export class GraphEdge {
  /** @param {GraphNode} from @param {GraphNode} to @param {boolean} ambiguous */
  constructor(from, to, ambiguous) {
    this.from = from;
    this.to = to;
    this.ambiguous = ambiguous;
    this.count = 0;
    this.closeWait = 0;
    /** Ports of the called end. @type {Set<number>} */
    this.ports = new Set();
    // Only the sockets of TCP and unix have a direction.
    this.directed = true;
  }
}

/**
 * Return the nodes of rows.
 * @param {Iterable<Row>} rows
 * @param {Peers} peers
 * @param {boolean} unix whether connections of unix sockets count too
 * @param {Unmatched} [unmatched]
 * @param {number} [now] in ms
 */
export function buildGraph(rows, peers, unix, unmatched, now) {
  const graph = new Graph(peers, unix, unmatched, now);
  for (const row of rows) graph.take(row);
  for (const row of graph.sockets()) graph.add(row);
  return graph.nodes();
}

/**
 * Makes the nodes of rows, which may be done in slices: take() each row, then add() each of
 * sockets(). Each socket counts once, for its oldest holder, and each connection of which both
 * ends are there counts once.
 */
export class Graph {
  /** @param {Peers} peers @param {boolean} unix @param {Unmatched} [unmatched]
   * @param {number} [now] in ms */
  constructor(peers, unix, unmatched = new Unmatched(), now = 0) {
    this._peers = peers;
    this._unix = unix;
    this._unmatched = unmatched;
    this._now = now;
    /** @type {Map<string, GraphNode>} */
    this._nodes = new Map();
    /** The nodes of processes, by host and pid. @type {Map<string, Map<number, GraphNode>>} */
    this._units = new Map();
    /** @type {Map<string, string>} */
    this._networks = new Map();
    /** Sockets with an inode, by host and inode. @type {Map<string, Map<number, Row>>} */
    this._sockets = new Map();
    /** @type {Row[]} */
    this._others = [];
  }

  /** Take a row and its process. @param {Row} row */
  take(row) {
    const { record } = row;
    this.unit(record);
    if (!record.inode) {
      this._others.push(row);
      return;
    }
    let known = this._sockets.get(record.host);
    if (known === undefined) this._sockets.set(record.host, (known = new Map()));
    const other = known.get(record.inode);
    if (other === undefined || isOlder(row, other)) known.set(record.inode, row);
  }

  /** Return the rows of the oldest holders. */
  sockets() {
    return [...this._others, ...[...this._sockets.values()].flatMap((known) => [...known.values()])];
  }

  /** Return the nodes. */
  nodes() {
    return [...this._nodes.values()];
  }

  /** Count a socket. @param {Row} row */
  add(row) {
    const { record } = row;
    const unit = this.unit(record);
    if (record.state === "CLOSE_WAIT") unit.closeWait += 1;
    if (listens(record)) {
      if (record.local_port) unit.listens.add(record.local_port);
    } else if (record.family === "unix") this._addUnix(row, unit);
    else if (record.remote_addr) this._addInet(row, unit);
  }

  /** @param {Row} row @param {GraphNode} unit */
  _addInet(row, unit) {
    const { record } = row;
    const calls = isCaller(record);
    if (!calls && record.direction !== "inbound") return;
    const peer = this._peers.of(row);
    if (peer.row !== null) {
      if (peer.across) this._unmatched.match(row);
      const other = peer.row.record;
      if (!this._units.has(other.host)) return;
      // Of two ends the calling one counts; of two that call, or that are called, the first one.
      const otherCalls = isCaller(other);
      const isAlike = calls ? otherCalls : !otherCalls && other.direction === "inbound";
      if (isAlike ? row.key > peer.row.key : otherCalls) return;
      const there = this.unit(other);
      const closeWait = record.state === "CLOSE_WAIT" || other.state === "CLOSE_WAIT";
      if (calls) this._connect(unit, there, record, record.remote_port, closeWait, false);
      else this._connect(there, unit, record, record.local_port, closeWait, false);
      return;
    }
    if (!peer.ambiguous && this._peers.isNew(row)) return;
    const owner = peer.ambiguous ? null : this._peers.hostOf(record);
    if (owner !== null && !this._unmatched.isOld(row, this._now)) return;
    const closeWait = record.state === "CLOSE_WAIT";
    if (calls) {
      const there = this._end("callees", row, owner);
      this._connect(unit, there, record, record.remote_port, closeWait, peer.ambiguous);
    } else {
      const there = this._end("callers", row, owner);
      this._connect(there, unit, record, record.local_port, closeWait, peer.ambiguous);
    }
  }

  /** @param {Row} row @param {GraphNode} unit */
  _addUnix(row, unit) {
    if (!this._unix || row.record.direction !== "outbound") return;
    const { row: other } = this._peers.of(row);
    if (other === null) return;
    const there = this.unit(other.record);
    if (there !== unit) this._connect(unit, there, row.record, null, false, false);
  }

  /** @param {GraphNode} from @param {GraphNode} to @param {SocketRecord} record
   * @param {number | null | undefined} port @param {boolean} closeWait
   * @param {boolean} ambiguous */
  _connect(from, to, record, port, closeWait, ambiguous) {
    const edges = ambiguous ? from.guesses : from.calls;
    let edge = edges.get(to);
    if (edge === undefined) edges.set(to, (edge = new GraphEdge(from, to, ambiguous)));
    edge.count += 1;
    from.connections += 1;
    if (to !== from) to.connections += 1;
    if (closeWait) {
      edge.closeWait += 1;
      if (from.side !== "here") from.closeWait += 1;
      if (to.side !== "here") to.closeWait += 1;
    }
    if (port && edge.ports.size < MAX_VALUES) edge.ports.add(port);
    if (record.direction === null) edge.directed = false;
  }

  /** Return the node of the process of a record. @param {SocketRecord} record */
  unit(record) {
    let known = this._units.get(record.host);
    if (known === undefined) this._units.set(record.host, (known = new Map()));
    if (record.pid !== null) {
      const unit = known.get(record.pid);
      if (unit !== undefined) return unit;
    }
    const place = placeOf(record).id;
    const id = `${record.host}\0${place}${place === "-" ? record.comm : ""}`;
    const unit = this._node(id, "here", record.host);
    unit.record ??= record;
    if (record.pid !== null) {
      known.set(record.pid, unit);
      unit.pids.add(record.pid);
      unit.names.add(record.comm ?? "?");
    }
    return unit;
  }

  /** @param {"callers" | "callees"} side @param {Row} row
   * @param {string | null} owner the host whose address it is */
  _end(side, row, owner) {
    const { record } = row;
    const address = record.remote_addr ?? "";
    let network = owner === null ? this._networks.get(address) : unmapped(address);
    if (network === undefined) this._networks.set(address, (network = networkOf(address)));
    const port = side === "callees" ? record.remote_port ?? null : null;
    const node = this._node(`${side}\0${network}\0${port ?? ""}`, side, "");
    node.row = row;
    node.network = network;
    node.owner = owner ?? "";
    node.port = port;
    node.names.add(unmapped(address));
    return node;
  }

  /** @param {string} id @param {Side} side @param {string} host */
  _node(id, side, host) {
    let node = this._nodes.get(id);
    if (node === undefined) this._nodes.set(id, (node = new GraphNode(id, side, host)));
    return node;
  }
}

/** Return whether a socket has called; one of UDP with a peer has no direction.
 * @param {SocketRecord} record */
function isCaller(record) {
  return record.direction === "outbound" || (record.proto !== "tcp" && record.direction === null);
}

/** @param {GraphNode} node */
function unitTexts(node) {
  const record = /** @type {SocketRecord} */ (node.record);
  const place = placeOf(record);
  const [name, ...more] = node.names;
  let filter = place.words;
  let label = place.label;
  let note = "";
  if (name === undefined) return { label, note, words: filter };
  if (more.length === 0) {
    label = node.pids.size === 1 ? process({ ...record, comm: name }) : safe(name);
    note = place.id === "-" ? "" : place.label;
    if (node.pids.size > 1) note += `${note && ", "}${counted(node.pids.size, "process")}`;
    if (place.id === "-") filter = words("comm", name);
  } else {
    const names = [...node.names].sort();
    note = safe(names.slice(0, 3).join(", ")) + (names.length > 3 ? ` +${names.length - 3}` : "");
  }
  if (filter.length === 0 && node.pids.size <= MAX_VALUES) {
    filter = [`pid=${[...node.pids].sort((one, other) => one - other).join(",")}`];
  }
  return { label, note, words: filter };
}

/** @param {GraphNode} node */
function networkTexts(node) {
  const { network, port, names, owner } = node;
  const [only] = names;
  const address = names.size === 1 ? only : network;
  const isAddress = names.size === 1 && network !== LOOPBACK;
  const shown = isAddress && port !== null && only.includes(":") ? `[${only}]` : address;
  const label = network === LOOPBACK ? LOOPBACK : safe(shown);
  const filter = [`addr=${network === LOOPBACK ? "127.0.0.0/8,::1" : address}`];
  if (port !== null) filter.push(`port=${port}`);
  let note = names.size > 1 ? counted(names.size, "address") : "";
  if (network === LOOPBACK) note = "not seen";
  else if (owner) note = `${safe(owner)}: not seen`;
  return { label: port === null ? label : `${label}:${port}`, note, words: filter };
}
