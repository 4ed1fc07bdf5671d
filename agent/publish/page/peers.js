// The other ends of sockets, on the same host and on the other hosts whose rows are there. Pure.

import { isLoopback } from "./text.js";

/** @typedef {import("./records.js").SocketRecord} SocketRecord */
/** @typedef {import("./state.js").Row} Row */
/**
 * The other end of a socket. `row` is that of its oldest holder, null if there is none or if it is
 * not known. `ambiguous`: several sockets fit, so that none is named. `across`: it is on another
 * host.
 * @typedef {{row: Row | null, ambiguous: boolean, across: boolean}} Peer
 */

/** @type {Peer} */
const NONE = Object.freeze({ row: null, ambiguous: false, across: false });
/** @type {Peer} */
const AMBIGUOUS = Object.freeze({ row: null, ambiguous: true, across: false });
const PROTOCOLS = ["tcp", "udp", "udplite"];
const PORTS = 65_536;
// So that two of them make one exact number.
const MAX_ENDS = 2 ** 26;
const MAPPED = "::ffff:";
// Rows of one step, which takes about a millisecond.
const STEP = 500;

/**
 * Return an IPv4 address that is mapped into IPv6 as plain IPv4; others as they are.
 * @param {string} address
 */
export function unmapped(address) {
  return address.startsWith(MAPPED) && address.includes(".") ? address.slice(MAPPED.length)
    : address;
}

/**
 * Finds the other ends among rows.
 *
 * Within a host: the socket with the swapped addresses and ports in the same network namespace,
 * and of unix sockets `peer_inode`. Across hosts: where exactly one host reports the connection
 * from this end and exactly one other host reports it swapped. Addresses of the machine itself
 * never lead to another host. Where addresses are translated on the way, nothing is found.
 */
export class Peers {
  /** @param {Iterable<Row>} rows */
  constructor(rows = []) {
    /** @type {Map<string, Row>} */
    this._unix = new Map();
    // Numbers instead of texts as keys: the join of 20,000 rows takes a third of the time.
    /** @type {Map<string, number>} */
    this._addresses = new Map();
    /** The host of each address; null if it is one of several hosts. @type {Map<string, string | null>} */
    this._hosts = new Map();
    /** @type {Map<number, number>} */
    this._ends = new Map();
    /** @type {Map<number, Row[]>} */
    this._sockets = new Map();
    const steps = this.add(rows);
    while (!steps.next().done);
  }

  /**
   * Add rows in steps, between which there may be pauses; the other ends are known after the last.
   * @param {Iterable<Row>} rows
   * @returns {Generator<void>}
   */
  *add(rows) {
    /** @type {Row[]} */
    const connected = [];
    let count = 0;
    for (const row of rows) {
      if (++count % STEP === 0) yield;
      const { record } = row;
      if (record.family === "unix") {
        if (!record.inode) continue;
        const key = `${record.host}\0${record.inode}`;
        const known = this._unix.get(key);
        if (known === undefined || isOlder(row, known)) this._unix.set(key, row);
      } else if (record.remote_addr && record.local_addr) {
        connected.push(row);
        const address = unmapped(record.local_addr);
        const host = this._hosts.get(address);
        if (host === undefined) {
          this._addresses.set(address, this._addresses.size);
          this._hosts.set(address, record.host);
        } else if (host !== record.host) this._hosts.set(address, null);
      }
    }
    for (const row of connected) {
      if (++count % STEP === 0) yield;
      const key = this._key(row.record, false);
      if (key < 0) continue;
      const list = this._sockets.get(key);
      if (list === undefined) this._sockets.set(key, [row]);
      else list.push(row);
    }
  }

  /**
   * Return the other host to which the remote end of a socket belongs, whether or not it reports
   * it; null if none, or several, have this address.
   * @param {SocketRecord} record
   */
  hostOf(record) {
    const { remote_addr: address } = record;
    const host = address && !isLoopback(address) ? this._hosts.get(unmapped(address)) : null;
    return host === record.host ? null : host ?? null;
  }

  /** Return the other end of a socket. @param {Row} row @returns {Peer} */
  of(row) {
    const { record } = row;
    if (record.family === "unix") {
      const found = record.peer_inode
        ? this._unix.get(`${record.host}\0${record.peer_inode}`) : undefined;
      return found === undefined ? NONE : { row: found, ambiguous: false, across: false };
    }
    const key = this._key(record, true);
    const others = key < 0 ? undefined : this._sockets.get(key);
    if (others === undefined) return NONE;
    if (record.netns != null) {
      const here = others.filter((other) => isSamePlace(other.record, record));
      if (here.length) return joined(here, false);
    }
    if (isLoopback(record.local_addr) || isLoopback(record.remote_addr)) return NONE;
    const away = others.filter((other) => other.record.host !== record.host);
    if (away.length === 0) return NONE;
    // Another socket at this end, or at the other end on this host, leaves the choice open.
    const same = this._sockets.get(this._key(record, false)) ?? [];
    const unique = same.every((other) => isSameSocket(other.record, record)) &&
      away.length === others.length;
    return unique ? joined(away, true) : AMBIGUOUS;
  }

  /**
   * Return whether a socket is not among these rows, and its other end may be on the same host: who
   * holds it is not known yet.
   * @param {Row} row
   */
  isNew(row) {
    const key = this._key(row.record, false);
    return key >= 0 && !this._sockets.get(key)?.includes(row);
  }

  /**
   * Return the number of a connection seen from one end, or if `swap` from the other one; -1 where
   * no row has the remote address as its own.
   * @param {SocketRecord} record
   * @param {boolean} swap
   */
  _key(record, swap) {
    const { proto, local_addr: local, remote_addr: remote } = record;
    if (!local || !remote) return -1;
    const kind = PROTOCOLS.indexOf(proto ?? "");
    const from = this._addresses.get(unmapped(local));
    const to = this._addresses.get(unmapped(remote));
    if (kind < 0 || from === undefined || to === undefined) return -1;
    const one = this._end((from * PROTOCOLS.length + kind) * PORTS + (record.local_port ?? 0));
    const two = this._end((to * PROTOCOLS.length + kind) * PORTS + (record.remote_port ?? 0));
    return swap ? two * MAX_ENDS + one : one * MAX_ENDS + two;
  }

  /** Return a small number for an end. @param {number} end */
  _end(end) {
    let known = this._ends.get(end);
    if (known === undefined) this._ends.set(end, (known = this._ends.size));
    return known;
  }
}

/**
 * Return the end that is one of these rows, which is ambiguous if they are of several sockets.
 * @param {Row[]} rows
 * @param {boolean} across
 * @returns {Peer}
 */
function joined(rows, across) {
  let oldest = rows[0];
  for (const row of rows) {
    if (!isSameSocket(row.record, oldest.record)) return AMBIGUOUS;
    if (isOlder(row, oldest)) oldest = row;
  }
  return { row: oldest, ambiguous: false, across };
}

/** @param {SocketRecord} one @param {SocketRecord} other */
function isSamePlace(one, other) {
  return one.host === other.host && one.netns === other.netns;
}

/** @param {SocketRecord} one @param {SocketRecord} other */
function isSameSocket(one, other) {
  return one === other || (one.inode && isSamePlace(one, other) && one.inode === other.inode);
}

/**
 * Return whether a row has an older holder than another one; unknown holders come last.
 * @param {Row} row
 * @param {Row} other
 */
export function isOlder(row, other) {
  const [one, two] = [row.record.start_time ?? "~", other.record.start_time ?? "~"];
  return one === two ? (row.record.pid ?? Infinity) < (other.record.pid ?? Infinity) : one < two;
}
