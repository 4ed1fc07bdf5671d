// The state that records lead to: which process holds which socket on which host. Pure.
// It follows the same rules as agent/stream/state.py.

import { keyOf, timeOf } from "./records.js";

/** @typedef {import("./records.js").AnyRecord} AnyRecord */
/** @typedef {import("./records.js").SocketRecord} SocketRecord */
/** @typedef {import("./records.js").Coverage} Coverage */
/** @typedef {import("./records.js").HelloRecord} HelloRecord */

/**
 * One holding. The object stays the same while its key is in the state.
 * @typedef {object} Row
 * @property {string} key
 * @property {SocketRecord} record the newest one
 * @property {number | null} since when it opened, in ms since the Unix epoch; null if it was open
 *   before the records began
 * @property {number} changed the time of the newest record, in ms since the Unix epoch
 */

/**
 * What is known of a host beside its rows.
 * @typedef {object} HostState
 * @property {string} host
 * @property {HelloRecord | null} hello the newest one
 * @property {string | null} epoch
 * @property {number} seq the newest change that the rows include
 * @property {boolean} complete a snapshot has ended, and nothing was lost since
 * @property {Coverage | null} coverage
 * @property {number} lastTime of the newest record, in ms since the Unix epoch
 * @property {[number, number | null][]} lost the newest ranges of changes that are missing
 */

/** @typedef {{total: number, listen: number, inbound: number, outbound: number, closeWait: number}} Counts */
/**
 * What changed: where `all` is set, everything may have.
 * @typedef {{added: Row[], updated: Row[], removed: string[], all: boolean}} Changes
 */

// Ranges that are kept for each host: a page may be open for months.
const MAX_LOST = 100;
// With more changes than this at once everything is shown anew.
const MAX_CHANGES = 5000;
// States begin with versions so far apart that those of two states are never the same.
const VERSIONS = 2 ** 32;
let states = 0;

/** @implements {HostState} */
class Host {
  /** @param {string} host */
  constructor(host) {
    this.host = host;
    /** @type {HelloRecord | null} */
    this.hello = null;
    /** @type {string | null} */
    this.epoch = null;
    this.seq = 0;
    this.complete = false;
    /** @type {Coverage | null} */
    this.coverage = null;
    this.lastTime = -Infinity;
    /** @type {[number, number | null][]} */
    this.lost = [];
    /**
     * The snapshot that has begun and not ended; of the first one, the state has the rows already.
     * @type {Map<string, Row> | null}
     */
    this.arriving = null;
    /** What all records of that snapshot have in common. */
    this.head = "";
    this.hadSnapshot = false;
  }
}

/**
 * The rows of all hosts, kept current by records. A record that does not fit, such as the close
 * of a socket that is not open, is applied as far as possible and counted in `violations`.
 * Changes of sockets without an inode leave no trace.
 */
export class State {
  constructor() {
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    /** @type {Map<string, Host>} */
    this.hosts = new Map();
    /** @type {Counts} */
    this.counts = { total: 0, listen: 0, inbound: 0, outbound: 0, closeWait: 0 };
    this.violations = 0;
    /** Grows with each change of the rows; no two states have the same. */
    this.version = VERSIONS * states++;
    /** @type {Map<string, Row>} */
    this._added = new Map();
    /** @type {Map<string, Row>} */
    this._updated = new Map();
    /** @type {Set<string>} */
    this._removed = new Set();
    this._all = true;
  }

  /** Apply a record. @param {AnyRecord} record */
  apply(record) {
    let host = this.hosts.get(record.host);
    if (host === undefined) this.hosts.set(record.host, (host = new Host(record.host)));
    const time = timeOf(record);
    host.lastTime = Math.max(host.lastTime, time);
    switch (record.event) {
      case "snapshot":
        this._addToSnapshot(host, record, time);
        return;
      case "snapshot_end":
        this._endSnapshot(host, record.count);
        break;
      case "open":
      case "update":
      case "close":
        this._change(record, time);
        break;
      case "hello":
        host.arriving = null;
        host.complete = host.complete && record.resumed;
        host.hello = record;
        host.epoch = record.epoch;
        host.coverage = record;
        return; // Where it resumes, changes up to its seq may still follow.
      case "coverage":
        host.coverage = record;
        break;
      case "lost":
        host.lost.push([record.from, record.to]);
        if (host.lost.length > MAX_LOST) host.lost.shift();
        host.arriving = null;
        host.complete = false;
        return;
    }
    host.seq = record.seq;
  }

  /**
   * Return the (epoch, seq) after which the stream of each complete host can resume.
   * @returns {[string, number][]}
   */
  positions() {
    /** @type {[string, number][]} */
    const found = [];
    for (const host of this.hosts.values()) {
      if (host.complete && host.epoch !== null) found.push([host.epoch, host.seq]);
    }
    return found;
  }

  /** Return the hosts whose first snapshot is there. A recording may have none, but changes. */
  wholeHosts() {
    const hosts = [...this.hosts.values()];
    const whole = hosts.filter((one) => one.hadSnapshot || (one.arriving === null && one.seq > 0));
    return new Set(whole.map(({ host }) => host));
  }

  /** Return what changed since the last call. @returns {Changes} */
  takeChanges() {
    const added = [...this._added.values()];
    const updated = [...this._updated.values()];
    const changes = { added, updated, removed: [...this._removed], all: this._all };
    this._forgetChanges();
    this._all = false;
    return changes;
  }

  /** Those of another head are of another snapshot.
   * @param {Host} host @param {SocketRecord} record @param {number} time */
  _addToSnapshot(host, record, time) {
    const head = `${record.seq} ${record.time}`;
    if (host.arriving === null || head !== host.head) {
      host.arriving = new Map();
      host.head = head;
      if (!host.hadSnapshot) this._removeHost(host.host);
    }
    let key = keyOf(record);
    if (!record.inode) {
      // Of the many that may be without an inode, each gets a key of its own.
      key = `${record.host}\0${record.pid ?? ""}\0${-1 - host.arriving.size}`;
    } else if (host.arriving.has(key)) {
      this.violations += 1;
    }
    host.arriving.set(key, { key, record, since: null, changed: time });
    if (!host.hadSnapshot) this._put(key, record, null, time);
  }

  /** Replace the rows of a host by those of its snapshot. A row that was there before keeps the
   * time of its opening.
   * @param {Host} host @param {number} records */
  _endSnapshot(host, records) {
    const after = host.arriving ?? new Map();
    this.violations += after.size !== records ? 1 : 0;
    if (host.hadSnapshot) {
      const prefix = `${host.host}\0`;
      for (const key of [...this.rows.keys()]) {
        if (key.startsWith(prefix) && !after.has(key)) this._remove(key);
      }
      for (const { key, record, changed } of after.values()) {
        const was = this.rows.get(key);
        this._put(key, record, was && isSame(was.record, record) ? was.since : null, changed);
      }
    } else if (host.arriving === null) {
      this._removeHost(host.host); // An empty snapshot after changes.
    }
    host.arriving = null;
    host.hadSnapshot = host.complete = true;
  }

  /** @param {SocketRecord} record @param {number} time */
  _change(record, time) {
    if (!record.inode) return;
    const key = keyOf(record);
    const was = this.rows.get(key);
    if ((was !== undefined) === (record.event === "open")) this.violations += 1;
    if (record.event === "close") this._remove(key);
    else if (record.event === "open") this._put(key, record, time, time);
    else this._put(key, record, was?.since ?? null, time);
  }

  /** @param {string} key @param {SocketRecord} record @param {number | null} since
   * @param {number} changed */
  _put(key, record, since, changed) {
    const row = this.rows.get(key);
    this.version += 1;
    if (row === undefined) {
      const added = { key, record, since, changed };
      this.rows.set(key, added);
      this._count(record, 1);
      if (this._removed.delete(key)) this._all = true; // It is another row than the removed one.
      if (!this._all) this._added.set(key, added);
    } else {
      this._count(row.record, -1);
      this._count(record, 1);
      row.record = record;
      row.since = since;
      row.changed = changed;
      if (!this._all && !this._added.has(key)) this._updated.set(key, row);
    }
    this._limitChanges();
  }

  /** @param {string} key */
  _remove(key) {
    const row = this.rows.get(key);
    if (row === undefined) return;
    this.version += 1;
    this.rows.delete(key);
    this._count(row.record, -1);
    this._updated.delete(key);
    if (!this._added.delete(key) && !this._all) this._removed.add(key);
    this._limitChanges();
  }

  /** @param {string} host */
  _removeHost(host) {
    const prefix = `${host}\0`;
    for (const key of [...this.rows.keys()]) if (key.startsWith(prefix)) this._remove(key);
  }

  /** @param {SocketRecord} record @param {1 | -1} sign */
  _count(record, sign) {
    const counts = this.counts;
    counts.total += sign;
    if (record.direction === "listen") counts.listen += sign;
    else if (record.direction === "inbound") counts.inbound += sign;
    else if (record.direction === "outbound") counts.outbound += sign;
    if (record.state === "CLOSE_WAIT") counts.closeWait += sign;
  }

  _limitChanges() {
    if (this._added.size + this._updated.size + this._removed.size > MAX_CHANGES) this._all = true;
    if (this._all) this._forgetChanges();
  }

  _forgetChanges() {
    if (this._added.size) this._added = new Map();
    if (this._updated.size) this._updated = new Map();
    if (this._removed.size) this._removed = new Set();
  }
}

/**
 * Return whether two records with one key are the same process on the same socket. Inodes and
 * pids are reused. A field that is unknown in one of them is no difference.
 * @param {SocketRecord} was
 * @param {SocketRecord} now
 */
function isSame(was, now) {
  return (
    was.pid === now.pid && was.start_time === now.start_time && isAlike(was.proto, now.proto) &&
    isAlike(was.family, now.family) && isAlike(was.type, now.type)
  );
}

/** @param {string | null} [one] @param {string | null} [other] */
const isAlike = (one, other) => one == null || other == null || one === other;
