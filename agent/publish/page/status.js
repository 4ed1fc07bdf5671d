// What is always in view: the state of the line, the counts, the rates, and what is not seen.

import { setText } from "./lines.js";
import { average } from "./rates.js";
import { silenceText } from "./silence.js";
import { Sparkline } from "./sparkline.js";
import { count, counted, safe } from "./text.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./line.js").LineState} LineState */
/** @typedef {import("./rates.js").Series} Series */

// In milliseconds: how often changes are announced to a screen reader.
const ANNOUNCE = 5000;
// In seconds: a rate is an average, so that the number can be read.
const AVERAGE = 10;
// The parts of the state of the line.
const LINE = ["line-text", "line-silent", "line-notice"];

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** A number with a label before or after it. */
class Figure {
  /** @param {HTMLElement} parent @param {string} label @param {string} one the label of 1 */
  constructor(parent, label, one = label) {
    const element = document.createElement("span");
    this._labels = [label, one];
    this._value = document.createElement("b");
    this._label = document.createTextNode("");
    element.append(this._value, this._label);
    parent.append(element);
  }

  /** @param {number} value */
  set(value) {
    const [label, one] = this._labels;
    setText(this._value, count(value));
    this._label.data = ` ${value === 1 ? one : label}`;
  }
}

/** A rate: its label, its newest minute, its number. */
class Rate {
  /** @param {HTMLElement} parent @param {string} label */
  constructor(parent, label) {
    this._element = document.createElement("span");
    this._element.className = "rate";
    this._value = document.createElement("b");
    this._line = new Sparkline(label);
    this._element.append(label, this._line.element, this._value);
    parent.append(this._element);
  }

  /** @param {(number | null)[]} series @param {number | null} value @param {boolean} isBad */
  set(series, value, isBad = false) {
    this._line.update(series);
    setText(this._value, value === null ? "–" : value < 10 ? shortRate(value) : count(Math.round(value)));
    this._element.classList.toggle("bad", isBad);
  }
}

/** @param {number} value */
const shortRate = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(1));

export class Status {
  constructor() {
    this._line = byId("line");
    const counts = byId("counts");
    this._total = new Figure(counts, "sockets", "socket");
    this._listen = new Figure(counts, "listen");
    this._inbound = new Figure(counts, "in");
    this._outbound = new Figure(counts, "out");
    const rates = byId("rates");
    this._opens = new Rate(rates, "open/s");
    this._closes = new Rate(rates, "close/s");
    this._closeWait = new Rate(rates, "CLOSE_WAIT");
    this._announcedAt = 0;
    this._counts = "";
    this._state = "";
  }

  /** Show the state of the line, also while the page is paused. @param {Model} model
   * @param {LineState} line */
  renderLine({ state, silent }, line) {
    this._line.dataset.kind = line.kind;
    const texts = [line.text + seqText(state, line), silenceText(silent), line.notice];
    LINE.forEach((id, index) => setText(byId(id), texts[index]));
    document.body.classList.toggle("cut-off", line.kind === "cut off" || line.kind === "refused");
  }

  /** Show counts, rates, hosts and coverage. @param {State} state @param {Series} series */
  renderFigures(state, series) {
    const { counts } = state;
    this._total.set(counts.total);
    this._listen.set(counts.listen);
    this._inbound.set(counts.inbound);
    this._outbound.set(counts.outbound);
    this._opens.set(series.opens, average(series.opens, AVERAGE));
    this._closes.set(series.closes, average(series.closes, AVERAGE));
    this._closeWait.set(series.closeWait, counts.closeWait, counts.closeWait > 0);
    setText(byId("hosts"), [...state.hosts.keys()].map(safe).join(", "));
    const coverage = coverageText(state);
    const element = byId("coverage");
    setText(element, coverage);
    element.title = coverage;
    element.hidden = coverage === "";
  }

  /**
   * Give a screen reader the same texts as are shown. A change of the line is announced at once,
   * one of the counts after some seconds.
   * @param {number} now in ms
   */
  announce(now) {
    const [text, silent, notice] = LINE.map((id) => byId(id).textContent);
    const counts = [...byId("counts").children].map((one) => one.textContent).join(", ");
    const state = [this._line.dataset.kind, silent, notice].join();
    const isDue = counts !== this._counts && now - this._announcedAt >= ANNOUNCE;
    const isAnnounced = state !== this._state || isDue;
    const element = byId("announcements");
    const shown = [text, silent, notice, counts].filter((part) => part !== "").join("; ");
    element.setAttribute("aria-live", isAnnounced ? "polite" : "off");
    if (!isAnnounced) {
      setText(element, shown);
      return;
    }
    element.replaceChildren(shown); // It is read even where the text has been there for a while.
    this._announcedAt = now;
    this._counts = counts;
    this._state = state;
  }
}

/** @param {State} state @param {LineState} line */
function seqText(state, line) {
  if (line.kind !== "live" || state.hosts.size !== 1) return "";
  const [host] = state.hosts.values();
  return host.complete ? `, seq ${count(host.seq)}` : ", the snapshot is coming";
}

/**
 * Return a sentence about what the agents cannot see; empty if they see everything.
 * @param {State} state
 */
function coverageText(state) {
  const sentences = [];
  for (const { host, coverage } of state.hosts.values()) {
    if (coverage === null || (coverage.complete && coverage.unreadable === 0)) continue;
    const { unreadable, processes, missing } = coverage;
    const seen = unreadable ? `${count(unreadable)} of ${counted(processes, "process")} not seen` : "";
    const text = [seen, missing.map(safe).join("; ")].filter((part) => part !== "").join(": ");
    sentences.push(`${state.hosts.size > 1 ? `${safe(host)}: ` : ""}${text}`);
  }
  return sentences.length ? `? ${sentences.join(" · ")}` : "";
}
