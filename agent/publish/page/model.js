// What all views show: the rows, the newest events, the rates and the other ends. Pure: times are
// arguments.

import { EventLog } from "./eventlog.js";
import { Peers } from "./peers.js";
import { Rates } from "./rates.js";
import { timeOf } from "./records.js";
import { Silence } from "./silence.js";
import { State } from "./state.js";
import { counted, safe } from "./text.js";

/** @typedef {import("./records.js").AnyRecord} AnyRecord */
/** @typedef {import("./line.js").Line} Line */
/** @typedef {{peers: Peers, hosts: Set<string>, steps: Generator<void>}} Joining */

// In milliseconds: how often the other ends are found anew, and for how long at a time.
const JOIN_INTERVAL = 1000;
const JOIN_SLICE = 6;

export class Model {
  state = new State();
  log = new EventLog();
  rates = new Rates();
  peers = new Peers();
  /** Hosts of which nothing comes, and when something of each came last.
   * @type {ReadonlyMap<string, number>} */
  silent = new Map();
  _silence = new Silence();
  /** How many lines were no records. */
  bad = 0;
  /** By how much the time of arrival is later than that of a record: clocks may differ. In ms. */
  _lag = Infinity;
  /** The hosts whose first snapshot was there when the other ends were found. @type {Set<string>} */
  joinedHosts = new Set();
  _isEnded = false;
  _joinedVersion = -1;
  _joinedSize = 0;
  _joinedAt = -Infinity;
  /** The other ends that are being found. @type {Joining | null} */
  _joining = null;

  /**
   * @param {boolean} isReplay whether the records are of the past
   * @param {string} words the filter, of which the agent sends only what matches
   * @param {Model | null} before what was shown before
   */
  constructor(isReplay, words = "", before = null) {
    this.isReplay = isReplay;
    this.words = words;
    /** Whether the records are all that there are, of which an overview suffices at first. */
    this.isEverything = words === "";
    /** @type {number | null} */
    this._before = before?.allSockets() ?? null;
  }

  /**
   * Take records.
   * @param {AnyRecord[]} records
   * @param {Line} line
   * @param {number} wall the time of the browser, in ms since the Unix epoch
   */
  take(records, line, wall) {
    let changes = 0;
    let host = null;
    for (const record of records) {
      if (record.host !== host) this._silence.hear((host = record.host), wall);
      if (record.event === "hello") line.hello(record, this.state.hosts.get(record.host), wall);
      this.state.apply(record);
      this.log.push(record);
      if (record.event === "open") this.rates.open(timeOf(record));
      else if (record.event === "close") this.rates.close(timeOf(record));
      else if (record.event === "lost") {
        line.lost(record, wall);
        this.rates.gap(timeOf(record));
      }
      if (record.event !== "snapshot" && record.event !== "heartbeat") changes += 1;
    }
    const last = records.at(-1);
    if (last !== undefined) this._lag = Math.min(this._lag, wall - timeOf(last));
    line.received(changes, wall);
    if (this.silent.size) this.findSilent(line, wall);
  }

  /** Find which hosts are silent now. @param {Line} line @param {number} wall */
  findSilent(line, wall) {
    this.silent = this._silence.silent(wall, line.steadySince(wall));
  }

  /**
   * Return the time of the agent, in ms since the Unix epoch: ages are counted to it.
   * @param {number} wall
   */
  now(wall) {
    if (!this.isReplay) return wall - (Number.isFinite(this._lag) ? this._lag : 0);
    const times = [...this.state.hosts.values()].map((host) => host.lastTime);
    return times.length ? Math.max(...times) + 1000 : wall;
  }

  /** Take down the present moment for the rates. @param {number} now @param {boolean} isCutOff */
  tick(now, isCutOff) {
    if (isCutOff) this.rates.gap(now);
    else this.rates.gauge(now, this.state.counts.closeWait);
  }

  /** No more records come. Return what is to be said of them, if anything. */
  end() {
    this._isEnded = true;
    const cut = [...this.state.hosts.values()]
      .filter(({ hello, arriving }) => hello !== null && arriving !== null); // No single snapshot.
    const found = [];
    if (cut.length) {
      const names = cut.map(({ host }) => safe(host)).join(", ");
      found.push(`it ends within a snapshot of ${names}: the rows known so far are shown`);
    }
    if (this.state.hosts.size === 0) found.push("it holds no record");
    if (this.bad) {
      found.push(`${counted(this.bad, "line")} ${this.bad === 1 ? "is no record" : "are no records"}`);
    }
    return found;
  }

  /** Return how many sockets there are without the filter, or were before it; null if unknown.
   * @returns {number | null} */
  allSockets() {
    if (!this.isEverything) return this._before;
    return this.isWhole() ? this.state.counts.total : null;
  }

  /** Return whether all is there that is to come of each host at first. */
  isWhole() {
    const { size } = this.state.hosts;
    return size > 0 && this._wholeHosts().size === size;
  }

  /** The hosts of which all is there that is to come at first. */
  _wholeHosts() {
    return this._isEnded ? new Set(this.state.hosts.keys()) : this.state.wholeHosts();
  }

  /**
   * Find the other ends, if rows have changed, for some milliseconds. Return whether there is more
   * to do.
   * @param {() => number} clock in ms, from any beginning
   */
  join(clock) {
    const begin = clock();
    if (this._joining === null) {
      const { version, rows } = this.state;
      const hosts = this._wholeHosts();
      // While a snapshot arrives, and at its end, the other ends are found at once.
      const isUrgent = hosts.size !== this.joinedHosts.size || rows.size > 2 * this._joinedSize;
      const isEarly = begin < this._joinedAt + JOIN_INTERVAL || version === this._joinedVersion;
      if (isEarly && !isUrgent) return false;
      const peers = new Peers();
      this._joining = { peers, hosts, steps: peers.add(rows.values()) };
      this._joinedVersion = version;
      this._joinedSize = rows.size;
      this._joinedAt = begin;
    }
    while (!this._joining.steps.next().done) if (clock() >= begin + JOIN_SLICE) return true;
    this.peers = this._joining.peers;
    this.joinedHosts = this._joining.hosts;
    this._joining = null;
    return false;
  }
}
