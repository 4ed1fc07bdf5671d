// The view of the event log. It follows the newest line until someone scrolls up.

import { describe } from "./eventlog.js";
import { element, LINE_HEIGHT, Lines, moved, setText } from "./lines.js";
import { count } from "./text.js";

/** @typedef {import("./records.js").AnyRecord} AnyRecord */
/** @typedef {import("./records.js").SocketRecord} SocketRecord */
/** @typedef {import("./eventlog.js").EventLog} EventLog */
/** @typedef {{log: EventLog, state: {hosts: ReadonlyMap<string, unknown>}}} Model */

const CELLS = /** @type {const} */ ([
  "time", "word", "host", "process", "direction", "ends", "detail", "place",
]);

/** The newest events, of which only those in view are in the document. */
export class EventsView {
  element = element("section", "events-view");
  #onSelect;
  // A log that is not announced line by line: that would be thousands of lines.
  #list = element("div", "events-list");
  #bar = element("div", "events-bar");
  #mark = element("button", "events-mark");
  #newer = element("button", "events-newer");
  #lines;
  /** @type {EventLog | null} */
  #log = null;
  #follows = true;
  /** Whether it is another log than the one that is shown. */
  #isAnew = true;
  /** Lines that the log had dropped, and had in all, when they were shown last. */
  #dropped = 0;
  #total = 0;
  /** Where the view scrolled itself to; while it does not follow, where it is. */
  #tail = 0;
  /** The number of the selected line since the beginning. */
  #selected = -1;
  #ids = 0;

  /** @param {(record: SocketRecord) => void} onSelect is called for Enter and a click */
  constructor(onSelect) {
    this.#onSelect = onSelect;
    this.element.setAttribute("role", "log");
    this.element.setAttribute("aria-live", "off");
    this.element.setAttribute("aria-label", "Events");
    this.#list.tabIndex = 0;
    this.#list.setAttribute("role", "listbox");
    this.#list.setAttribute("aria-label", "Newest events, the newest last");
    this.#lines = new Lines(this.#list, () => this.#make(), (line, index) => this.#fill(line, index));
    this.#mark.type = this.#newer.type = "button";
    this.#newer.hidden = this.#mark.hidden = true;
    this.#newer.addEventListener("click", () => this.#toEnd());
    this.#mark.addEventListener("click", () => this.#toMark());
    this.#list.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    this.#list.addEventListener("keydown", (event) => this.#onKey(event));
    this.#list.addEventListener("click", (event) => this.#onClick(event));
    this.#bar.append(this.#mark);
    this.element.append(this.#bar, this.#list, this.#newer);
  }

  /** Show the view. */
  show() {
    this.element.hidden = false;
    this.#update();
  }

  /** Hide the view. */
  hide() {
    this.element.hidden = true;
  }

  /** Show the events of the model. @param {Model} model */
  render(model) {
    if (model.log !== this.#log) {
      this.#log = model.log;
      this.#isAnew = true;
      this.#dropped = 0;
      this.#total = 0;
      this.#selected = -1;
      this.#follows = true;
    }
    this.element.classList.toggle("one-host", model.state.hosts.size < 2);
    this.#update();
  }

  #update() {
    const log = this.#log;
    if (log === null || this.element.hidden) return;
    const gone = log.dropped - this.#dropped;
    const total = log.dropped + log.length;
    this.#dropped = log.dropped;
    this.#lines.length = log.length;
    if (this.#follows) {
      this.#total = total;
      this.#list.scrollTop = this.#list.scrollHeight;
    } else if (gone > 0) {
      // What is in view stays where it is.
      this.#list.scrollTop -= gone * LINE_HEIGHT;
    }
    this.#tail = this.#list.scrollTop;
    this.#lines.paint(gone !== 0 || this.#isAnew);
    this.#isAnew = false;
    this.#updateBar(total);
  }

  /** @param {number} total */
  #updateBar(total) {
    const log = /** @type {EventLog} */ (this.#log);
    const newer = this.#follows ? 0 : total - this.#total;
    this.#newer.hidden = this.#follows;
    setText(this.#newer, newer ? `${count(newer)} newer, press End` : "not following, press End");
    const last = log.marks[log.marks.length - 1];
    this.#mark.hidden = last === undefined;
    if (last === undefined) return;
    const line = describe(last.record);
    const more = log.marks.length > 1 ? ` (and ${log.marks.length - 1} before)` : "";
    setText(this.#mark, `${line.time} ${line.word} ${line.detail}${more}`);
    this.#mark.dataset.tone = line.tone;
  }

  #make() {
    const line = element("div", "event");
    line.id = `event-${(this.#ids += 1)}`;
    line.setAttribute("role", "option");
    // It grows: -1 means that it is not known.
    line.setAttribute("aria-setsize", "-1");
    for (const cell of CELLS) line.append(element("span", `event-${cell}`));
    return line;
  }

  /** @param {HTMLElement} target @param {number} index */
  #fill(target, index) {
    const log = /** @type {EventLog} */ (this.#log);
    const record = log.at(index);
    if (record === undefined) return;
    const line = describe(record);
    CELLS.forEach((cell, at) => setText(target.children[at], line[cell]));
    target.dataset.tone = line.tone;
    target.dataset.index = String(index + log.dropped);
    target.classList.toggle("is-mark", line.mark);
    target.setAttribute("aria-posinset", String(index + log.dropped + 1));
    const isSelected = index + log.dropped === this.#selected;
    target.setAttribute("aria-selected", String(isSelected));
    if (isSelected) this.#list.setAttribute("aria-activedescendant", target.id);
  }

  #onScroll() {
    const { scrollTop, clientHeight, scrollHeight } = this.#list;
    if (this.#follows) {
      this.#follows = scrollTop >= this.#tail - LINE_HEIGHT / 2;
      if (!this.#follows) this.#update();
      return;
    }
    // Only who scrolls down to the end follows again: a key may have stopped there.
    const isEnd = scrollTop + clientHeight >= scrollHeight - LINE_HEIGHT / 2;
    this.#follows = isEnd && scrollTop > this.#tail;
    this.#tail = scrollTop;
    if (this.#follows) this.#update();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const log = this.#log;
    if (log === null || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter") {
      this.#open(this.#selected);
      return;
    }
    if (event.key === "End") {
      event.preventDefault();
      this.#toEnd();
      return;
    }
    const before = this.#selected < log.dropped ? log.length : this.#selected - log.dropped;
    const index = moved(event.key, before, log.length, this.#lines.page);
    if (index === null) return;
    event.preventDefault();
    this.#select(index + log.dropped);
  }

  /** @param {MouseEvent} event */
  #onClick(event) {
    const line = event.target instanceof Element ? event.target.closest(".event") : null;
    // Text that was marked with the mouse is to be copied.
    if (!(line instanceof HTMLElement) || getSelection()?.toString()) return;
    this.#select(Number(line.dataset.index));
    this.#open(this.#selected);
  }

  /** Select a line; the tail is followed on only from the last one. @param {number} number */
  #select(number) {
    const log = /** @type {EventLog} */ (this.#log);
    this.#selected = number;
    const index = number - log.dropped;
    if (index < log.length - 1 && this.#follows) {
      this.#follows = false;
      this.#updateBar(this.#total);
    }
    this.#lines.reveal(index);
    this.#lines.paint(true);
  }

  /** @param {number} number */
  #open(number) {
    const log = /** @type {EventLog} */ (this.#log);
    const record = log.at(number - log.dropped);
    if (record !== undefined && "inode" in record) this.#onSelect(record);
  }

  #toEnd() {
    const log = this.#log;
    this.#follows = true;
    if (log !== null && this.#selected >= 0) this.#selected = log.dropped + log.length - 1;
    this.#update();
    this.#lines.paint(true);
    this.#list.focus({ preventScroll: true });
  }

  #toMark() {
    const log = /** @type {EventLog} */ (this.#log);
    const mark = log.marks[log.marks.length - 1];
    if (mark.index >= log.dropped) this.#select(mark.index);
    this.#list.focus({ preventScroll: true });
  }
}
