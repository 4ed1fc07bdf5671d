// The side panel: a socket, its process, its other end, and the newest events of both.

import { describe } from "./eventlog.js";
import { closeFields, peerText, processFields, processSockets, socketFields } from "./fields.js";
import { element, setText } from "./lines.js";
import { keyOf } from "./records.js";
import { endpoint, process as processName, safe } from "./text.js";

/** @typedef {import("./records.js").SocketRecord} SocketRecord */
/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./fields.js").Field} Field */
/** @typedef {import("./tableview.js").Model} Model */

const MAX_EVENTS = 8;
// Milliseconds between two looks at all rows and events.
const INTERVAL = 500;

/** A list of labels and texts under a title; hidden while it is empty. */
class Section {
  element = element("section", "fields");
  #list = element("dl", "");
  #labels = "";
  /** @type {HTMLElement[]} */
  #texts = [];

  /** @param {string} title */
  constructor(title) {
    this.element.append(element("h3", "", title), this.#list);
  }

  /** @param {Field[]} fields */
  show(fields) {
    this.element.hidden = fields.length === 0;
    const labels = fields.map(([label]) => label).join();
    if (labels !== this.#labels) {
      this.#labels = labels;
      this.#texts = fields.map(() => element("dd", ""));
      const names = fields.map(([label]) => element("dt", "", label));
      this.#list.replaceChildren(...names.flatMap((name, index) => [name, this.#texts[index]]));
    }
    for (const [index, [, text]] of fields.entries()) setText(this.#texts[index], text);
  }
}

/** The panel in an element, which is hidden until a row is shown. */
export class Details {
  #element;
  #title = element("h2", "");
  #place = element("p", "place");
  #closed = new Section("Closed");
  #socket = new Section("Socket");
  #process = new Section("Process");
  #sockets = new Section("Sockets of the process");
  #peer = element("section", "peer");
  #peerButton = element("button", "link");
  #peerNote = element("p", "");
  #events = element("section", "newest");
  #eventList = element("ol", "");
  /** @type {Row | null} */
  #row = null;
  /** The row at the other end. @type {Row | null} */
  #other = null;
  /** @type {SocketRecord | null} */
  #end = null;
  #rendered = -Infinity;

  /**
   * @param {HTMLElement} panel
   * @param {{onClose: () => void, onSelect: (row: Row) => void}} options `onSelect` is called for
   *   the row at the other end
   */
  constructor(panel, { onClose, onSelect }) {
    this.#element = panel;
    panel.hidden = true;
    panel.classList.add("details");
    const close = element("button", "close", "✕");
    close.type = this.#peerButton.type = "button";
    close.setAttribute("aria-label", "close the details");
    close.addEventListener("click", onClose);
    this.#peerButton.addEventListener("click", () => {
      if (this.#other !== null) onSelect(this.#other);
    });
    this.#peer.append(element("h3", "", "Other end"), this.#peerButton, this.#peerNote);
    this.#events.append(element("h3", "", "Newest events of the process"), this.#eventList);
    const header = element("header", "");
    header.append(this.#title, close, this.#place);
    panel.append(
      header, this.#closed.element, this.#socket.element, this.#peer, this.#process.element,
      this.#sockets.element, this.#events,
    );
    panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      onClose();
    });
  }

  /** The key of the row that is shown, null without one. */
  get key() {
    return this.#row?.key ?? null;
  }

  /**
   * Show a row at the next render().
   * @param {Row} row
   */
  show(row) {
    this.#row = row;
    this.#end = null;
    this.#rendered = -Infinity;
    this.#element.hidden = false;
    this.#element.scrollTop = 0;
  }

  /** Show nothing. */
  hide() {
    this.#row = null;
    this.#element.hidden = true;
  }

  /**
   * Write what is known of the row now, at most every 500 ms.
   * @param {Model} model
   * @param {number} now in ms since the Unix epoch
   */
  render(model, now) {
    const time = performance.now();
    if (this.#row === null || time < this.#rendered + INTERVAL) return;
    this.#rendered = time;
    this.#row = model.state.rows.get(this.#row.key) ?? this.#row;
    const { record } = this.#row;
    setText(this.#title, processName(record));
    setText(this.#place, safe(record.unit ?? record.container ?? ""));
    this.#closed.show(this.#closeFields(model, this.#row));
    this.#socket.show(socketFields(this.#row, now));
    this.#process.show(processFields(record, now));
    this.#sockets.show(processSockets(model.state.rows.values(), record));
    this.#showPeer(model, this.#row);
    this.#showEvents(model, record);
  }

  /** @param {Model} model @param {Row} row @returns {Field[]} */
  #closeFields(model, row) {
    if (model.state.rows.has(row.key)) {
      this.#end = null;
      return [];
    }
    // The record may leave the log while the panel is open.
    const isEnd = (/** @type {SocketRecord} */ one) =>
      one.event === "close" && keyOf(one) === row.key;
    this.#end ??= model.log.newest(1, isEnd)[0] ?? null;
    return this.#end === null ? [["closed", "its record is no longer kept"]] : closeFields(this.#end);
  }

  /** @param {Model} model @param {Row} row */
  #showPeer({ peers }, row) {
    const peer = peers?.of(row) ?? { row: null, ambiguous: false, across: false };
    this.#other = peer.row;
    this.#peerButton.hidden = peer.row === null;
    if (peer.row !== null) {
      const { record } = peer.row;
      const host = peer.across ? ` on ${safe(record.host)}` : "";
      setText(this.#peerButton, `${processName(record)}${host}`);
      const end = endpoint(record, "local");
      setText(this.#peerNote, `${end === "-" ? "unnamed" : end} ${record.state ?? ""}`);
    } else {
      setText(this.#peerNote, peerText(peer, row.record));
    }
    this.#peer.hidden = this.#peerNote.textContent === "";
  }

  /** @param {Model} model @param {SocketRecord} record */
  #showEvents({ log }, record) {
    const newest = log.newest(
      MAX_EVENTS,
      record.pid === null
        ? (one) => one.inode === record.inode && one.host === record.host
        : (one) => one.pid === record.pid && one.host === record.host,
    );
    this.#events.hidden = newest.length === 0;
    while (this.#eventList.children.length > newest.length) this.#eventList.lastChild?.remove();
    for (const [index, event] of newest.entries()) {
      const item = this.#eventList.children[index] ?? this.#eventList.appendChild(element("li", ""));
      const { time, word, ends, detail } = describe(event);
      const isOwn = event.inode === record.inode;
      if (!(item instanceof HTMLElement)) continue;
      item.className = isOwn ? "own" : "";
      setText(item, [time, word, isOwn ? "this socket" : ends, detail].filter(Boolean).join("  "));
    }
  }
}
