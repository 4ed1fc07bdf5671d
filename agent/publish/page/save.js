// What is shown as a recording, which `sockagent --read` takes: the state before the newest events,
// and these events. Pure.

import { isSocketRecord, keyOf } from "./records.js";

/** @typedef {import("./records.js").AnyRecord} AnyRecord */
/** @typedef {import("./records.js").SocketRecord} SocketRecord */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").HostState} HostState */
/** @typedef {{length: number, at: (index: number) => AnyRecord | undefined}} Log */
/** @typedef {{seq: number, time: string}} Position */

/** What a record of a snapshot does not have. @type {(keyof SocketRecord)[]} */
const ONLY_CHANGES = [
  "previous", "time_source", "reason", "duration_ms", "attribution", "bytes_sent",
  "bytes_received", "segments_out", "segments_in", "retransmits", "rtt_ms",
];

/**
 * Return what makes the lines of a recording, one after the other. Records that are in the state
 * are read at once, so that later changes are not mixed in.
 * @param {State} state
 * @param {Log} log
 * @returns {(() => string)[]}
 */
export function recording(state, log) {
  /** @type {(() => string)[]} */
  const lines = [];
  /** @type {Set<AnyRecord>} */
  const kept = new Set();
  for (const host of state.hosts.values()) {
    const rows = rowsOf(state, host.host);
    const events = host.complete ? newestEvents(log, host.host) : [];
    for (const event of events) {
      kept.add(event);
      undo(event, rows);
    }
    const first = events.at(-1);
    const position = first === undefined
      ? { seq: host.seq, time: isoTime(host.lastTime) }
      : { seq: first.seq - 1, time: first.time };
    const { hello, coverage } = host;
    if (hello !== null) {
      lines.push(() => line({ ...hello, ...coverage, event: "hello", resumed: false, ...position }));
    }
    for (const record of rows.values()) lines.push(() => line(asSnapshot(record, position)));
    const end = { event: "snapshot_end", ...position, host: host.host, count: rows.size };
    lines.push(() => line(end));
  }
  for (let index = 0; index < log.length; index += 1) {
    const record = log.at(index);
    if (record !== undefined && kept.has(record)) lines.push(() => line(record));
  }
  return lines;
}

/** @param {number} ms */
const isoTime = (ms) => new Date(Number.isFinite(ms) ? ms : 0).toISOString();
/** @param {object} record */
const line = (record) => `${JSON.stringify(record)}\n`;

/** @param {State} state @param {string} host @returns {Map<string, SocketRecord>} */
function rowsOf(state, host) {
  const rows = new Map();
  for (const { key, record } of state.rows.values()) if (record.host === host) rows.set(key, record);
  return rows;
}

/**
 * Return the newest events of a host, the newest first, back to where some are missing or a
 * snapshot began.
 * @param {Log} log
 * @param {string} host
 */
function newestEvents(log, host) {
  /** @type {AnyRecord[]} */
  const events = [];
  for (let index = log.length - 1; index >= 0; index -= 1) {
    const record = log.at(index);
    if (record === undefined || record.host !== host) continue;
    if (record.event === "lost" || record.event === "snapshot_end") break;
    if (record.event === "hello" && !record.resumed) break;
    if (record.event !== "hello") events.push(record);
  }
  return events;
}

/** Take back a change. @param {AnyRecord} record @param {Map<string, SocketRecord>} rows */
function undo(record, rows) {
  if (!isSocketRecord(record) || !record.inode) return;
  const key = keyOf(record);
  if (record.event === "open") rows.delete(key);
  else if (record.event === "close") rows.set(key, record);
  else rows.set(key, { ...record, ...record.previous });
}

/** @param {SocketRecord} record @param {Position} position @returns {SocketRecord} */
function asSnapshot(record, position) {
  /** @type {SocketRecord} */
  const copy = { ...record, ...position, event: "snapshot" };
  for (const name of ONLY_CHANGES) delete copy[name];
  return copy;
}
