// What the details say of a socket and of its process, as pairs of a label and a text. Pure.

import {
  address, bytes, clock, count, counted, direction, duration, endpoint, isQueueFull, listens, queue,
  safe, user,
} from "./text.js";

/** @typedef {import("./records.js").SocketRecord} SocketRecord */
/** @typedef {import("./state.js").Row} Row */
/** @typedef {[label: string, text: string]} Field */
/** @typedef {[label: string, value: string | number | null | undefined]} Pair */

const DIRECTIONS = new Map([
  ["in", "inbound: the other end called"],
  ["out", "outbound: this process called"],
  ["·", "waits for callers"],
]);
const ATTRIBUTIONS = new Map([
  ["route", "a guess: it alone sent from the port"],
  ["connect", "it connected the socket, or listened on it"],
  ["close", "it closed the socket last"],
  ["listener", "a guess: it alone holds the listener"],
]);
// Listeners of a process that are named; some have hundreds.
const MAX_LISTENERS = 6;

/**
 * Return the pairs whose value is known, as safe texts.
 * @param {Pair[]} pairs
 * @returns {Field[]}
 */
function known(pairs) {
  return pairs.flatMap(([label, value]) =>
    value === null || value === undefined || value === "-" ? [] : [[label, safe(String(value))]],
  );
}

/**
 * Return the local time of a moment, with its date.
 * @param {number} ms since the Unix epoch
 */
function moment(ms) {
  const date = new Date(ms);
  const digits = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${digits(date.getMonth() + 1)}-${digits(date.getDate())}`;
  return `${day} ${clock(ms)}`;
}

/** @param {number} ms @param {number} now */
const ago = (ms, now) => `${moment(ms)}, ${duration(now - ms)} ago`;

/**
 * Return the fields of a socket.
 * @param {Row} row
 * @param {number} now in ms since the Unix epoch
 * @returns {Field[]}
 */
export function socketFields({ record, since }, now) {
  const isListener = record.state === "LISTEN";
  const isInternet = record.family === "inet" || record.family === "inet6";
  const full = isQueueFull(record) ? ": full" : "";
  return known([
    ["protocol", protocol(record)],
    ["state", record.state],
    ["direction", DIRECTIONS.get(direction(record))],
    ["local", endpoint(record, "local")],
    ["remote", record.remote_addr == null ? null : endpoint(record, "remote")],
    ["interface", record.interface],
    ["open since", since === null ? "before the records began" : ago(since, now)],
    ["accept queue", isListener ? `${queue(record)}${full}` : null],
    ["not read", isListener ? null : size(record.recv_q)],
    [isInternet ? "not acknowledged" : "not sent", isListener ? null : size(record.send_q)],
    ["owner", record.uid == null ? null : `${user(record)} (${record.uid})`],
    ["inode", record.inode || null],
    ["network namespace", record.netns],
    ["descriptors", descriptors(record)],
    ["read from", record.source],
    ["holder found by", ATTRIBUTIONS.get(record.attribution ?? "")],
    ["host", record.host],
  ]);
}

/** @param {SocketRecord} record */
function protocol({ proto, type, family }) {
  return [...new Set([proto, type, family])].filter(Boolean).join(", ");
}

/** @param {number | null} value */
const size = (value) => (value === null ? null : bytes(value));

/** @param {SocketRecord} record */
function descriptors({ fds = [], fd_count: total = fds.length }) {
  if (total === 0) return null;
  const more = total > fds.length ? ` and ${counted(total - fds.length, "other")}` : "";
  return fds.join(", ") + more;
}

/**
 * Return what the end of a socket told.
 * @param {SocketRecord} record of the event `close`
 * @returns {Field[]}
 */
export function closeFields(record) {
  const lived = record.duration_ms;
  return known([
    ["closed", clock(Date.parse(record.time))],
    ["reason", record.reason],
    ["was open for", lived == null ? "unknown" : duration(lived)],
    ["sent", withSegments(record.bytes_sent, record.segments_out)],
    ["received", withSegments(record.bytes_received, record.segments_in)],
    ["sent again", record.retransmits == null ? null : counted(record.retransmits, "segment")],
    ["round trip", record.rtt_ms == null ? null : `${record.rtt_ms} ms`],
  ]);
}

/** @param {number | null | undefined} sum @param {number | null | undefined} segments */
function withSegments(sum, segments) {
  if (sum == null) return null;
  return bytes(sum) + (segments == null ? "" : ` in ${counted(segments, "segment")}`);
}

/**
 * Return the fields of the process of a record; of an unknown one those of its control group.
 * @param {SocketRecord} record
 * @param {number} now
 * @returns {Field[]}
 */
export function processFields(record, now) {
  const started = record.start_time === undefined ? NaN : Date.parse(record.start_time);
  return known([
    ["pid", record.pid],
    ["name", record.comm],
    ["parent", record.ppid],
    ["started", Number.isNaN(started) ? null : ago(started, now)],
    ["program", record.exe],
    ["command line", record.cmdline?.join(" ")],
    ["unit", record.unit],
    ["container", record.container],
    ["cgroup", record.cgroup],
  ]);
}

/**
 * Return how many sockets the process of a record holds, and its listeners with their queues.
 * @param {Iterable<Row>} rows all rows
 * @param {SocketRecord} of
 * @returns {Field[]}
 */
export function processSockets(rows, of) {
  if (of.pid === null) return [];
  const sums = { all: 0, inbound: 0, outbound: 0, closeWait: 0, listeners: 0 };
  /** @type {string[]} */
  const listeners = [];
  for (const { record } of rows) {
    if (record.pid !== of.pid || record.host !== of.host) continue;
    sums.all += 1;
    if (record.direction === "inbound") sums.inbound += 1;
    if (record.direction === "outbound") sums.outbound += 1;
    if (record.state === "CLOSE_WAIT") sums.closeWait += 1;
    if (!listens(record)) continue;
    sums.listeners += 1;
    if (listeners.length < MAX_LISTENERS) listeners.push(listenerText(record));
  }
  const more = sums.listeners - listeners.length;
  if (more > 0) listeners.push(`${count(more)} more`);
  return known([
    ["sockets", count(sums.all)],
    ["inbound", count(sums.inbound)],
    ["outbound", count(sums.outbound)],
    ["CLOSE_WAIT", sums.closeWait === 0 ? null : count(sums.closeWait)],
    ["listens on", listeners.join("; ") || null],
  ]);
}

/** @param {SocketRecord} record */
function listenerText(record) {
  const isInternet = record.local_addr != null;
  const end = isInternet ? address(record.local_addr, record.local_port) : safe(record.path ?? "-");
  if (record.backlog == null) return end;
  return `${end}, queue ${queue(record)}${isQueueFull(record) ? ": full" : ""}`;
}

/**
 * Return who holds the other end, in words.
 * @param {import("./peers.js").Peer} peer
 * @param {SocketRecord} record
 */
export function peerText(peer, record) {
  if (peer.ambiguous) return "several sockets fit";
  if (record.peer_pid != null) return `pid ${record.peer_pid}`;
  const { proto, remote_addr: remote } = record;
  return remote != null && (proto === "tcp" || proto === "udp") ? "not among the sockets here" : "";
}
