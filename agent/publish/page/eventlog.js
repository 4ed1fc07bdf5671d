// The event log: the newest changes and marks, and the words for each. Pure.
// The words are those of the log in the terminal.

import { timeOf } from "./records.js";
import { bytes, clock, count, counted, direction, duration, ends, process, safe } from "./text.js";

/** @typedef {import("./records.js").AnyRecord} AnyRecord */
/** @typedef {import("./records.js").SocketRecord} SocketRecord */
/** @typedef {import("./records.js").Coverage} Coverage */

/**
 * One line of the log. The fields that do not apply are empty.
 * @typedef {object} Line
 * @property {string} time local time of the day
 * @property {string} word
 * @property {string} host
 * @property {string} process
 * @property {string} direction
 * @property {string} ends
 * @property {string} detail
 * @property {string} place unit or container
 * @property {"" | "good" | "warn" | "bad" | "muted"} tone
 * @property {boolean} mark whether the line is about the stream, not about a socket
 */

// Lines that are kept, about 1 kB each.
export const MAX_EVENTS = 10_000;
// Marks that are kept beside the lines, so that a flood of changes does not push them out.
export const MAX_MARKS = 100;
/** States that a new socket is expected to have. */
const USUAL_STATES = new Set([null, "ESTABLISHED", "CONNECTED", "UNCONNECTED"]);
const PROCESS_FIELDS = /** @type {const} */ (["comm", "exe", "ppid", "unit"]);

/** The newest records that are shown as lines, the oldest first. */
export class EventLog {
  constructor(limit = MAX_EVENTS) {
    this._limit = limit;
    /** @type {AnyRecord[]} */
    this._ring = [];
    this._start = 0;
    /** How many lines are no longer kept. */
    this.dropped = 0;
    /**
     * What says that something is missing: lost changes and changes of the coverage. `index` is
     * the number of the line since the beginning, whether it is still kept or not.
     * @type {{record: AnyRecord, index: number}[]}
     */
    this.marks = [];
  }

  /** How many lines are kept. */
  get length() {
    return this._ring.length;
  }

  /** Add a record; those of snapshots and heartbeats are no lines. @param {AnyRecord} record */
  push(record) {
    if (record.event === "snapshot" || record.event === "heartbeat") return;
    if (record.event === "lost" || record.event === "coverage") {
      this.marks.push({ record, index: this.dropped + this._ring.length });
      if (this.marks.length > MAX_MARKS) this.marks.shift();
    }
    if (this._ring.length < this._limit) {
      this._ring.push(record);
      return;
    }
    this._ring[this._start] = record;
    this._start = (this._start + 1) % this._limit;
    this.dropped += 1;
  }

  /** Return a record by its place; 0 is the oldest. @param {number} index */
  at(index) {
    if (index < 0 || index >= this._ring.length) return undefined;
    return this._ring[(this._start + index) % this._limit];
  }

  /**
   * Return the newest changes of sockets that pass a test, the newest first.
   * @param {number} limit
   * @param {(record: SocketRecord) => boolean} test
   */
  newest(limit, test) {
    /** @type {SocketRecord[]} */
    const found = [];
    for (let index = this._ring.length - 1; index >= 0 && found.length < limit; index -= 1) {
      const record = /** @type {AnyRecord} */ (this.at(index));
      if ("inode" in record && test(record)) found.push(record);
    }
    return found;
  }
}

/** Return the line of a record. @param {AnyRecord} record @returns {Line} */
export function describe(record) {
  const time = clock(timeOf(record));
  const host = safe(record.host);
  switch (record.event) {
    case "hello":
      return mark(time, host, "hello", hello(record), "muted");
    case "snapshot_end":
      return mark(time, host, "begin", `snapshot of ${counted(record.count, "record")}`, "muted");
    case "lost":
      return mark(time, host, "LOST", lost(record), "bad");
    case "coverage":
      return mark(time, host, "coverage", coverage(record), "warn");
    case "heartbeat":
      return mark(time, host, "alive", "", "muted");
    default:
      return change(time, host, record);
  }
}

/**
 * @param {string} time @param {string} host @param {string} word @param {string} detail
 * @param {Line["tone"]} tone @returns {Line}
 */
function mark(time, host, word, detail, tone) {
  return {
    time, host, word, detail: safe(detail), tone, mark: true,
    process: "", direction: "", ends: "", place: "",
  };
}

/** @param {string} time @param {string} host @param {SocketRecord} record @returns {Line} */
function change(time, host, record) {
  /** @type {Line["tone"]} */
  let tone = "";
  let detail = "";
  if (record.event === "open") {
    tone = "good";
    detail = opened(record);
  } else if (record.event === "update") {
    tone = record.state === "CLOSE_WAIT" ? "bad" : "";
    detail = updated(record);
  } else if (record.event === "close") {
    tone = "muted";
    detail = closed(record);
  }
  const way = direction(record);
  return {
    time, host, word: record.event, process: process(record), direction: way === "·" ? "-" : way,
    ends: ends(record), detail: safe(detail), place: safe(record.unit ?? record.container ?? ""),
    tone, mark: false,
  };
}

/** @param {import("./records.js").HelloRecord} record */
function hello(record) {
  const what = record.resumed ? "resumed, nothing missed" : "a snapshot follows";
  return `sockagent ${record.version} on ${record.host}; ${what}`;
}

/** @param {import("./records.js").LostRecord} record */
function lost(record) {
  const numbers = record.to === null ? `${record.from} on` : `${record.from}–${record.to}`;
  return `${numbers}: the reader was too slow`;
}

/** @param {Coverage} record */
function coverage(record) {
  const parts = [counted(record.processes, "process"), ...record.missing];
  if (record.unreadable && record.missing.length === 0) {
    parts.push(`${count(record.unreadable)} could not be read`);
  }
  if (record.complete) parts.push("everything could be read");
  return parts.join("; ");
}

/** @param {SocketRecord} record */
function opened(record) {
  if (record.attribution === "listener") return "holder guessed from the listener";
  return USUAL_STATES.has(record.state) ? "" : String(record.state);
}

/** Return what changed, the most important first. @param {SocketRecord} record */
function updated(record) {
  const before = /** @type {SocketRecord} */ ({ ...record, ...record.previous });
  /** @type {string[]} */
  const changes = [];
  /** @param {string} name @param {unknown} old @param {unknown} now */
  const compare = (name, old, now) => {
    if (asText(old) !== asText(now)) changes.push(`${name}${asText(old)} → ${asText(now)}`);
  };
  compare("", before.state, record.state);
  if (ends(before) !== ends(record)) changes.push(`was ${ends(before)}`);
  compare("fds ", before.fds, record.fds);
  for (const field of PROCESS_FIELDS) compare(`${field} `, before[field], record[field]);
  compare("owner ", before.uid, record.uid);
  return changes.join("; ");
}

/** @param {unknown} value */
function asText(value) {
  if (value === null || value === undefined) return "-";
  return Array.isArray(value) ? value.join(" ") : String(value);
}

/** @param {SocketRecord} record */
function closed(record) {
  const detail = closeReason(record);
  if (record.bytes_sent == null || record.bytes_received == null) return detail;
  const retransmits = record.retransmits ? `, ${counted(record.retransmits, "retransmit")}` : "";
  return (
    `${detail}; ${bytes(record.bytes_sent)} sent, ${bytes(record.bytes_received)} received` +
    retransmits
  );
}

/** @param {SocketRecord} record */
function closeReason(record) {
  if (record.reason === "attributed") return "holder found";
  if (record.reason === "filtered") return "no longer matches";
  if (record.duration_ms == null) {
    if (record.inode) return record.reason ?? "closed";
    return `over before a poll${record.pid === null ? ": holder not seen" : ""}`;
  }
  return `${record.reason} after ${duration(record.duration_ms)}`;
}
