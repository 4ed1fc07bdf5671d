// Records of the stream: their types, and how they are read from NDJSON. Pure.
// The fields are described in docs/records.md.

/**
 * A socket that a process holds. Fields that do not apply to a socket are absent.
 * @typedef {object} SocketRecord
 * @property {"snapshot" | "open" | "update" | "close"} event
 * @property {number} seq
 * @property {string} time
 * @property {string} host
 * @property {string | null} proto
 * @property {string | null} family
 * @property {string | null} state
 * @property {string | null} [local_addr]
 * @property {number | null} [local_port]
 * @property {string | null} [remote_addr]
 * @property {number | null} [remote_port]
 * @property {string | null} [interface]
 * @property {number | null} [backlog]
 * @property {string | null} [path]
 * @property {string | null} [type]
 * @property {number | null} [peer_inode]
 * @property {number | null} [peer_pid]
 * @property {"inbound" | "outbound" | "listen" | null} direction
 * @property {number | null} recv_q
 * @property {number | null} send_q
 * @property {number | null} inode
 * @property {number | null} netns
 * @property {number | null} uid
 * @property {string | null} user
 * @property {string} source
 * @property {number | null} pid
 * @property {number[]} [fds]
 * @property {number} [fd_count]
 * @property {string} [comm]
 * @property {string | null} [exe]
 * @property {number} [ppid]
 * @property {string} [start_time]
 * @property {string | null} [cgroup]
 * @property {string | null} [unit]
 * @property {string | null} [container]
 * @property {string[]} [cmdline]
 * @property {Record<string, unknown>} [previous] only in update
 * @property {"event" | "poll"} [time_source]
 * @property {"closed" | "exited" | "attributed" | "filtered"} [reason] only in close
 * @property {number | null} [duration_ms] only in close
 * @property {string | null} [attribution]
 * @property {number | null} [bytes_sent]
 * @property {number | null} [bytes_received]
 * @property {number | null} [segments_out]
 * @property {number | null} [segments_in]
 * @property {number | null} [retransmits]
 * @property {number | null} [rtt_ms]
 */

/**
 * What the agent can read.
 * @typedef {object} Coverage
 * @property {boolean} complete
 * @property {number} processes
 * @property {number} unreadable
 * @property {number} netns
 * @property {string[]} missing
 * @property {boolean} events
 * @property {string | null} events_off
 */

/** @typedef {{seq: number, time: string, host: string}} Head */
/**
 * @typedef {Head & Coverage & {event: "hello", schema: number, version: string,
 *   boot_id: string | null, epoch: string, interval: number, resumed: boolean}} HelloRecord
 */
/** @typedef {Head & Coverage & {event: "coverage"}} CoverageRecord */
/** @typedef {Head & {event: "snapshot_end", count: number}} SnapshotEndRecord */
/** @typedef {Head & {event: "lost", from: number, to: number | null}} LostRecord */
/** @typedef {Head & {event: "heartbeat", poll_ms: number}} HeartbeatRecord */
/**
 * @typedef {SocketRecord | HelloRecord | CoverageRecord | SnapshotEndRecord | LostRecord
 *   | HeartbeatRecord} AnyRecord
 */

/** @typedef {Record<string, unknown>} Json */

const TEXTS = [
  "proto", "family", "state", "local_addr", "remote_addr", "interface", "path", "type", "user",
  "source", "comm", "exe", "start_time", "cgroup", "unit", "container", "reason", "attribution",
];
const NUMBERS = [
  "local_port", "remote_port", "backlog", "peer_inode", "peer_pid", "recv_q", "send_q", "netns",
  "uid", "fd_count", "ppid", "duration_ms", "bytes_sent", "bytes_received", "segments_out",
  "segments_in", "retransmits", "rtt_ms",
];
const DIRECTIONS = new Set(["inbound", "outbound", "listen"]);

/** @param {unknown} value */
const isWhole = (value) => typeof value === "number" && Number.isInteger(value);
/** @param {unknown} value */
const isWholeOrNull = (value) => value === null || isWhole(value);
/** @param {unknown} value @param {string} type @returns {unknown[]} */
const listOf = (value, type) =>
  Array.isArray(value) ? value.filter((one) => typeof one === type) : [];

/** Make values of wrong types, which a file may have, unknown. @param {Json} record */
function clean(record) {
  for (const name of TEXTS) {
    const value = record[name];
    if (value != null && typeof value !== "string") record[name] = null;
  }
  for (const name of NUMBERS) {
    const value = record[name];
    if (value != null && !Number.isFinite(value)) record[name] = null;
  }
  if (record.direction !== undefined && !DIRECTIONS.has(/** @type {string} */ (record.direction))) {
    record.direction = null;
  }
  if (record.fds !== undefined) record.fds = listOf(record.fds, "number");
  if (record.cmdline !== undefined) record.cmdline = listOf(record.cmdline, "string");
}

/** @param {Json} record */
function isSocket(record) {
  if (!isWholeOrNull(record.pid) || !isWholeOrNull(record.inode)) return false;
  clean(record);
  const { previous } = record;
  if (typeof previous === "object" && previous !== null) clean(/** @type {Json} */ (previous));
  else if (previous !== undefined) record.previous = {};
  return true;
}

/** @param {Json} record */
function isCoverage(record) {
  if (!isWhole(record.processes) || !isWhole(record.unreadable)) return false;
  record.missing = listOf(record.missing, "string");
  return true;
}

/** @type {Map<unknown, (record: Json) => boolean>} */
const CHECKS = new Map([
  ["snapshot", isSocket],
  ["open", isSocket],
  ["update", isSocket],
  ["close", isSocket],
  ["hello", (record) => typeof record.epoch === "string" && isCoverage(record)],
  ["coverage", isCoverage],
  ["snapshot_end", (record) => isWhole(record.count)],
  ["lost", (record) => isWhole(record.from) && isWholeOrNull(record.to)],
  ["heartbeat", () => true],
]);

/**
 * Return the records of NDJSON text, and how many lines are no records. Records of events that
 * this version does not know are left out.
 * @param {string} text
 * @returns {{records: AnyRecord[], bad: number}}
 */
export function parseRecords(text) {
  /** @type {AnyRecord[]} */
  const records = [];
  let bad = 0;
  for (const line of text.split("\n")) {
    if (line === "" || line === "\r") continue;
    const record = parseLine(line);
    if (record === null) bad += 1;
    else if (CHECKS.has(record.event)) records.push(record);
  }
  return { records, bad };
}

/** @param {string} line @returns {AnyRecord | null} */
function parseLine(line) {
  let record;
  try {
    record = JSON.parse(line);
  } catch {
    return null;
  }
  if (
    record === null || typeof record !== "object" || typeof record.event !== "string" ||
    typeof record.host !== "string" || !isWhole(record.seq) ||
    typeof record.time !== "string" || Number.isNaN(Date.parse(record.time))
  ) {
    return null;
  }
  const check = CHECKS.get(record.event);
  return check === undefined || check(record) ? record : null;
}

/**
 * Return what identifies a holding: host, pid and inode. Records of sockets without an inode
 * share a key.
 * @param {SocketRecord} record
 */
export function keyOf(record) {
  return `${record.host}\0${record.pid ?? ""}\0${record.inode ?? ""}`;
}

let lastText = "";
let lastTime = NaN;

/**
 * Return the time of a record in milliseconds since the Unix epoch. Many records in a row have
 * the time of one poll.
 * @param {AnyRecord} record
 */
export function timeOf(record) {
  if (record.time !== lastText) {
    lastTime = Date.parse(record.time);
    lastText = record.time;
  }
  return lastTime;
}

/**
 * Return whether a record is of a socket.
 * @param {AnyRecord} record
 * @returns {record is SocketRecord}
 */
export function isSocketRecord(record) {
  return (
    record.event === "snapshot" || record.event === "open" || record.event === "update" ||
    record.event === "close"
  );
}
