// The columns of the table by name: those of the terminal, with the same texts. Pure.

import {
  age, direction, endpoint, isAny, isQueueFull, listens, process as processName, queue, safe, user,
} from "./text.js";

export { sortRows } from "./order.js";

/** @typedef {import("./records.js").SocketRecord} SocketRecord */
/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./order.js").SortKey} SortKey */
/**
 * What values take beside the row: the time in ms since the Unix epoch, and the row of the other
 * end, null if it is unknown or ambiguous.
 * @typedef {{now: number, peerOf: (row: Row) => Row | null}} Context
 */
/**
 * `value` is the safe text of a cell, `key` what it is sorted by: all of a column are numbers, or
 * all are strings, or null. `width` is in characters: a longer text is shortened in its
 * middle if it `isElided`, and otherwise widens the column. The key of a `joined` column depends
 * on other rows.
 * @typedef {object} Column
 * @property {string} id
 * @property {string} title
 * @property {string} help what it is, in a few words
 * @property {(row: Row, context: Context) => string} value
 * @property {(row: Row, context: Context) => SortKey} key
 * @property {"left" | "right"} align
 * @property {number} width
 * @property {(record: SocketRecord) => boolean} isElided
 * @property {boolean} joined
 */

const NONE = "-";
/** Keys of addresses: the same few are read again and again. @type {Map<string, string>} */
const addressKeys = new Map();
const MAX_ADDRESS_KEYS = 50_000;

/**
 * Return what sorts addresses: IPv4, IPv6, then other names.
 * @param {string | null | undefined} address
 */
export function addressKey(address) {
  if (address == null) return "0";
  let key = addressKeys.get(address);
  if (key === undefined) {
    if (addressKeys.size >= MAX_ADDRESS_KEYS) addressKeys.clear();
    addressKeys.set(address, (key = madeKey(address)));
  }
  return key;
}

// Numbers become characters of 16 bits: strings of them sort as the numbers do, and are short.
/** @param {string} address */
function madeKey(address) {
  const number = numberOf(address);
  if (number !== null) return "1" + words(number);
  const groups = groupsOf(address);
  return groups === null ? "3" + address : "2" + String.fromCharCode(...groups);
}

/** @param {number} number of 32 bits */
const words = (number) => String.fromCharCode(number >>> 16, number & 0xffff);

const DOT = ".".charCodeAt(0);
const ZERO = "0".charCodeAt(0);

/** @param {string} address @returns {number | null} an IPv4 address as a number */
function numberOf(address) {
  let [number, byte, digits, dots] = [0, 0, 0, 0];
  for (let index = 0; index < address.length; index++) {
    const code = address.charCodeAt(index);
    if (code === DOT && digits > 0 && dots < 3) {
      number = number * 256 + byte;
      byte = digits = 0;
      dots += 1;
      continue;
    }
    if (code < ZERO || code > ZERO + 9) return null;
    byte = byte * 10 + code - ZERO;
    digits += 1;
    if (byte > 255 || digits > 3) return null;
  }
  return dots === 3 && digits > 0 ? number * 256 + byte : null;
}

/** @param {string} address @returns {number[] | null} the eight groups of an IPv6 address */
function groupsOf(address) {
  const start = address.lastIndexOf(":") + 1;
  const mapped = numberOf(address.slice(start));
  if (mapped !== null) {
    const end = `${(mapped >>> 16).toString(16)}:${(mapped & 0xffff).toString(16)}`;
    address = address.slice(0, start) + end;
  }
  if (!/^[\da-f:]*:[\da-f:]*$/i.test(address)) return null;
  const halves = address.split("::").map((half) => (half === "" ? [] : half.split(":")));
  const missing = 8 - halves.flat().length;
  if (halves.length > 2 || (halves.length === 2 ? missing < 1 : missing !== 0)) return null;
  const groups = [...halves[0], ...Array(missing).fill("0"), ...(halves[1] ?? [])];
  return groups.every((group) => /^.{1,4}$/.test(group))
    ? groups.map((group) => parseInt(group, 16))
    : null;
}

/** @param {string | null | undefined} address @param {number | null | undefined} port */
const endKey = (address, port) =>
  addressKey(address) + words(port ?? 0);

/** @param {Row} row @returns {SortKey} the sockets of a process stand together */
function processKey({ record }) {
  return record.comm === undefined ? null : record.comm + "\0" + words(record.pid ?? 0);
}

/** @param {Row} row @returns {SortKey} */
function localKey({ record }) {
  if (record.family === "unix") return record.path == null ? null : endKey(record.path, 0);
  return endKey(record.local_addr, record.local_port);
}

/** @param {Row} row @returns {SortKey} */
const remoteKey = ({ record }) =>
  record.remote_addr == null ? null : endKey(record.remote_addr, record.remote_port);

/** @param {Row} row @param {Context} context */
function remoteText(row, context) {
  if (row.record.family !== "unix") return endpoint(row.record, "remote");
  const path = context.peerOf(row)?.record.path;
  return path == null ? NONE : safe(path);
}

/** @param {Row} row @param {Context} context */
function peerText(row, context) {
  const { record } = row;
  const peer = context.peerOf(row);
  if (peer !== null && peer.record.pid !== null) {
    const host = peer.record.host === record.host ? "" : ` ${safe(peer.record.host)}`;
    return processName(peer.record) + host;
  }
  return record.peer_pid == null ? NONE : `?[${record.peer_pid}]`;
}

/** @param {Row} row @param {Context} context @returns {SortKey} */
function peerKey(row, context) {
  const { peer_pid: pid } = row.record;
  const peer = context.peerOf(row);
  if (peer !== null && peer.record.pid !== null) return processKey(peer);
  return pid == null ? null : `?${words(pid)}`;
}

const always = () => true;
const never = () => false;
/** @param {SocketRecord} record addresses are never shortened */
const isPath = (record) => record.family === "unix";

/** @typedef {Partial<Pick<Column, "title" | "value" | "align" | "isElided" | "joined">>} Options */

/**
 * Return a column of which the text is made from the key, unless the options have another value.
 * @param {string} id
 * @param {string} help
 * @param {number} width
 * @param {Column["key"]} key
 * @param {Options} [options]
 * @returns {[string, Column]}
 */
function column(id, help, width, key, options = {}) {
  /** @type {Column["value"]} */
  const value = (row, context) => {
    const known = key(row, context);
    return known === null ? NONE : safe(String(known));
  };
  /** @type {Pick<Column, "title" | "value" | "align" | "isElided" | "joined">} */
  const usual = { title: id.toUpperCase(), value, align: "left", isElided: never, joined: false };
  return [id, { id, help, width, key, ...usual, ...options }];
}

/**
 * @template {keyof SocketRecord} Name
 * @param {Name} name
 * @returns {(row: Row) => Exclude<SocketRecord[Name], undefined> | null}
 */
const field = (name) => (row) =>
  /** @type {Exclude<SocketRecord[Name], undefined> | null} */ (row.record[name] ?? null);

/** @type {Options} */
const RIGHT = { align: "right" };
/** @type {Options} */
const ELIDED = { isElided: always };

/** All columns in their order. @type {Map<string, Column>} */
export const COLUMNS = new Map([
  column("host", "host", 12, field("host"), ELIDED),
  column("process", "name of the process", 15, processKey, {
    isElided: always,
    value: ({ record }) => (record.pid === null ? "?" : safe(record.comm ?? "?")),
  }),
  column("pid", "process id", 7, field("pid"), RIGHT),
  column("user", "owner of the socket", 10, ({ record }) => record.user ?? uidText(record), {
    isElided: always,
    value: ({ record }) => user(record),
  }),
  column("proto", "protocol", 6, field("proto")),
  column("dir", "who called: in, out; · waits for callers", 4, field("direction"), {
    value: ({ record }) => direction(record),
  }),
  column("state", "state in the kernel", 12, field("state")),
  column("local", "local end", 22, localKey, {
    value: ({ record }) => endpoint(record, "local"), isElided: isPath,
  }),
  column("remote", "remote end", 22, remoteKey, { value: remoteText, isElided: isPath }),
  column("peer", "process at the other end", 23, peerKey, {
    value: peerText, isElided: always, joined: true,
  }),
  column("recvq", "bytes not read; connections not accepted", 9, field("recv_q"), {
    align: "right",
    value: ({ record }) => queue(record),
  }),
  column("sendq", "bytes not acknowledged", 9, field("send_q"), RIGHT),
  column("unit", "systemd unit", 20, field("unit"), ELIDED),
  column("age", "how long it has been open", 5, ({ since }) => (since === null ? null : -since), {
    align: "right",
    value: ({ since }, { now }) => (since === null ? NONE : age(now - since)),
  }),
  column("exe", "path of the program", 24, field("exe"), ELIDED),
  column("ppid", "pid of the parent", 7, field("ppid"), RIGHT),
  column("start_time", "when the process started", 27, field("start_time")),
  column("cmdline", "command line", 32, ({ record }) => record.cmdline?.join(" ") ?? null, ELIDED),
  column("cgroup", "cgroup", 28, field("cgroup"), ELIDED),
  column("container", "container", 14, field("container"), ELIDED),
  column("uid", "user id of the owner", 7, field("uid"), RIGHT),
  column("inode", "inode of the socket", 11, ({ record }) => record.inode || null, RIGHT),
  column("fds", "descriptors", 10, ({ record }) => record.fds?.join(" ") ?? null, ELIDED),
  column("fd_count", "number of descriptors", 9, field("fd_count"), RIGHT),
  column("family", "address family", 7, field("family")),
  column("type", "type of a unix socket", 10, field("type")),
  column("interface", "interface that it is bound to", 10, field("interface")),
  column("netns", "inode of the network namespace", 11, field("netns"), RIGHT),
  column("peer_inode", "inode of the other end of a unix socket", 11, field("peer_inode"), RIGHT),
  column("peer_pid", "pid at the other end of a unix socket", 9, field("peer_pid"), RIGHT),
  column("source", "where it was read", 8, field("source")),
]);

/** The columns that are shown first. */
export const DEFAULT = [
  "process", "pid", "user", "proto", "dir", "state", "local", "remote", "peer", "unit", "age",
];

/**
 * Return the columns of some names in their order; without names those shown first, with HOST if
 * there are several hosts. Names that are no columns are left out.
 * @param {readonly string[] | null} names
 * @param {boolean} severalHosts
 * @returns {Column[]}
 */
export function chosenColumns(names, severalHosts) {
  const wanted = new Set(names ?? (severalHosts ? ["host", ...DEFAULT] : DEFAULT));
  const chosen = [...COLUMNS.values()].filter(({ id }) => wanted.has(id));
  return chosen.length > 0 ? chosen : chosenColumns(null, severalHosts);
}

/** @param {SocketRecord} record */
const uidText = (record) => (record.uid == null ? null : String(record.uid));

/**
 * Return text with its middle left out, so that it has at most `width` characters.
 * @param {string} text
 * @param {number} width
 */
export function shorten(text, width) {
  if (text.length <= width) return text;
  const chars = [...text];
  if (chars.length <= width) return text;
  const tail = Math.floor((width - 1) / 2);
  return [...chars.slice(0, width - 1 - tail), "…", ...chars.slice(chars.length - tail)].join("");
}

/**
 * Return the names of what stands out in a record, for the classes of its row.
 * @param {SocketRecord} record
 */
export function marks(record) {
  if (record.state === "CLOSE_WAIT") return "close-wait";
  if (!listens(record)) return "";
  const full = isQueueFull(record) ? " queue-full" : "";
  return `listen${isAny(record.local_addr) ? " any-address" : ""}${full}`;
}
