// The tree: host, if there are several; unit or container; process; sockets. Pure.

import { address, count, direction, ends, listens, process, safe } from "./text.js";

/** @typedef {import("./records.js").SocketRecord} SocketRecord */
/** @typedef {import("./state.js").Row} Row */
/** @typedef {{total: number, listen: number, inbound: number, outbound: number, closeWait: number}} Counts */
/**
 * A branch of the tree. Only processes have rows, only the others have children.
 * @typedef {object} Branch
 * @property {string} id the same in every tree
 * @property {"host" | "place" | "process"} kind
 * @property {string} label
 * @property {string} note what is known beside the label
 * @property {Counts} counts a socket of several processes counts once
 * @property {Branch[]} children
 * @property {Row[]} rows
 * @property {string[]} words a filter that selects it; empty if there is none
 */
/**
 * A line of the tree as it is unfolded.
 * @typedef {object} Item
 * @property {string} id
 * @property {number} level from 1
 * @property {number} position from 1, among the lines of one parent
 * @property {number} size the number of these lines
 * @property {boolean | null} expanded null where there is nothing to unfold
 * @property {Branch | null} branch
 * @property {Row | null} row of a socket
 */

export const NO_UNIT = "without a unit";
export const NOT_SEEN = "process not seen";
// Docker shortens ids to as many characters.
const ID_LENGTH = 12;
const PORTS = 65_536;

/**
 * Return the place of a record: container, unit, or else none.
 * @param {SocketRecord} record
 * @returns {{id: string, label: string, note: string, words: string[]}}
 */
export function placeOf(record) {
  const { container, unit } = record;
  if (container) {
    const label = /^[0-9a-f]{32,}$/.test(container) ? container.slice(0, ID_LENGTH)
      : safe(container);
    return { id: `c${container}`, label, note: "container", words: words("container", container) };
  }
  if (unit) return { id: `u${unit}`, label: safe(unit), note: "", words: words("unit", unit) };
  if (record.pid === null) return { id: "?", label: NOT_SEEN, note: "", words: [] };
  return { id: "-", label: NO_UNIT, note: "", words: [] };
}

/**
 * Return a filter as the words of a search; none where its value cannot be one word.
 * @param {string} name
 * @param {string} value
 */
export function words(name, value) {
  return /^[^\s,*?[\]\\]+$/.test(value) ? [`${name}=${value}`] : [];
}

/** A branch while its sockets are counted. */
class Building {
  /** @param {Branch["kind"]} kind @param {string} id @param {string} label @param {string} note
   * @param {string[]} filter */
  constructor(kind, id, label, note, filter) {
    /** @type {Branch} */
    this.branch = {
      id, kind, label, note, words: filter, children: [], rows: [],
      counts: { total: 0, listen: 0, inbound: 0, outbound: 0, closeWait: 0 },
    };
    /** @type {Map<string | number, Building>} */
    this.parts = new Map();
    /** @type {Set<number>} */
    this.inodes = new Set();
  }

  /** Count a socket. @param {SocketRecord} record */
  count(record) {
    if (record.inode) {
      if (this.inodes.has(record.inode)) return;
      this.inodes.add(record.inode);
    }
    const { counts } = this.branch;
    counts.total += 1;
    if (listens(record)) counts.listen += 1;
    else if (record.direction === "inbound") counts.inbound += 1;
    else if (record.direction === "outbound") counts.outbound += 1;
    if (record.state === "CLOSE_WAIT") counts.closeWait += 1;
  }

  /** Return the finished branch. @returns {Branch} */
  finish() {
    const children = [...this.parts.values()].map((part) => part.finish());
    this.branch.children = children.sort(
      (one, other) => rank(one) - rank(other) || compare(one.label, other.label),
    );
    return this.branch;
  }
}

/** @param {Branch} branch */
const rank = (branch) => (branch.label === NOT_SEEN ? 2 : branch.label === NO_UNIT ? 1 : 0);

// Numbers within names by value: worker[9] comes before worker[10].
const { compare } = new Intl.Collator("en", { numeric: true });

/** Makes the branches of rows, which may be done in slices. */
export class Tree {
  constructor() {
    this._root = new Building("host", "", "", "", []);
    /** @type {Building[]} */
    this._path = [];
    /** @type {SocketRecord | null} */
    this._last = null;
  }

  /** Add a row. @param {Row} row */
  add(row) {
    const { record } = row;
    // Rows of one process often follow each other.
    if (this._last === null || !isSameProcess(this._last, record)) {
      this._path = pathOf(this._root, record);
    }
    this._last = record;
    for (const building of this._path) building.count(record);
    this._path[this._path.length - 1].branch.rows.push(row);
  }

  /** Return the branches, sorted by name. With several hosts each is a branch. */
  branches() {
    const hosts = this._root.finish().children;
    return hosts.length === 1 ? hosts[0].children : hosts;
  }
}

/** @param {SocketRecord} one @param {SocketRecord} other */
function isSameProcess(one, other) {
  return one.pid === other.pid && one.host === other.host && one.unit === other.unit &&
    one.container === other.container;
}

/** Return the branches of the host, the place and the process of a record.
 * @param {Building} root @param {SocketRecord} record */
function pathOf(root, record) {
  const host = part(root, record.host, () =>
    new Building("host", `h${record.host}`, safe(record.host), "", []));
  const placed = placeOf(record);
  const place = part(host, placed.id, () => new Building("place",
    `${host.branch.id}\0${placed.id}`, placed.label, placed.note, placed.words));
  const isKnown = record.pid !== null;
  const leaf = part(place, record.pid ?? -1, () => new Building("process",
    `${place.branch.id}\0${record.pid}`, isKnown ? process(record) : NOT_SEEN,
    record.exe ? safe(record.exe) : "", isKnown ? [`pid=${record.pid}`] : []));
  return [host, place, leaf];
}

/** @param {Building} parent @param {string | number} key @param {() => Building} make */
function part(parent, key, make) {
  let known = parent.parts.get(key);
  if (known === undefined) parent.parts.set(key, (known = make()));
  return known;
}

/**
 * Return the lines of a tree in which the branches of these ids are unfolded.
 * @param {Branch[]} branches
 * @param {ReadonlySet<string>} expanded
 * @returns {Item[]}
 */
export function flatten(branches, expanded) {
  /** @type {Item[]} */
  const items = [];
  /** @param {Branch[]} list @param {number} level */
  const add = (list, level) => {
    list.forEach((branch, index) => {
      const open = expanded.has(branch.id);
      items.push({
        id: branch.id, level, position: index + 1, size: list.length, expanded: open, branch,
        row: null,
      });
      if (!open) return;
      add(branch.children, level + 1);
      const rows = sorted(branch.rows);
      rows.forEach((row, at) => items.push({
        id: `${branch.id}\0${row.key}`, level: level + 1, position: at + 1, size: rows.length,
        expanded: null, branch: null, row,
      }));
    });
  };
  add(branches, 1);
  return items;
}

/** Return rows in a stable order: what listens, then inbound, then outbound, by address.
 * @param {Row[]} rows */
function sorted(rows) {
  return rows
    .map((row) => ({ row, order: order(row.record) }))
    .sort((one, two) => one.order - two.order || compareEnds(one.row.record, two.row.record))
    .map(({ row }) => row);
}

/** @param {SocketRecord} record */
function order(record) {
  const way = listens(record) ? 0 : record.direction === "inbound" ? 1
    : record.direction === "outbound" ? 2 : record.family === "unix" ? 4 : 3;
  return way * PORTS + (record.local_port ?? 0);
}

/** @param {SocketRecord} one @param {SocketRecord} two */
function compareEnds(one, two) {
  const [from, to] = [one.remote_addr ?? one.path ?? "", two.remote_addr ?? two.path ?? ""];
  if (from !== to) return from < to ? -1 : 1;
  return (one.remote_port ?? 0) - (two.remote_port ?? 0) || (one.inode ?? 0) - (two.inode ?? 0);
}

/**
 * Return the texts of the line of a socket.
 * @param {SocketRecord} record
 * @returns {{proto: string, way: string, ends: string, state: string}}
 */
export function socketTexts(record) {
  const known = record.family === "unix" || record.local_addr != null;
  return {
    proto: safe(record.proto ?? "?"), way: direction(record),
    ends: known ? ends(record) : address(null, null), state: safe(record.state ?? "?"),
  };
}

/**
 * Return counts as words: `2 listen, 1,540 in, 60 out, 13 CLOSE_WAIT`.
 * @param {Counts} counts
 */
export function countWords(counts) {
  const parts = [];
  if (counts.listen) parts.push(`${count(counts.listen)} listen`);
  if (counts.inbound) parts.push(`${count(counts.inbound)} in`);
  if (counts.outbound) parts.push(`${count(counts.outbound)} out`);
  if (counts.closeWait) parts.push(`${count(counts.closeWait)} CLOSE_WAIT`);
  return parts.join(", ");
}
