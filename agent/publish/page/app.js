// The page: what is put together from its parts.

import { Connection } from "./connection.js";
import { EventsView } from "./eventsview.js";
import { listenToDrops, save } from "./files.js";
import { focusOn, listenToKeys, pressIn } from "./keys.js";
import { Line } from "./line.js";
import { MapView } from "./mapview.js";
import { Model } from "./model.js";
import { Pump } from "./pump.js";
import { joinWords, splitWords } from "./query.js";
import { keyOf } from "./records.js";
import { Replay } from "./replay.js";
import { recording } from "./save.js";
import { Search } from "./search.js";
import { Status } from "./status.js";
import { TableView } from "./tableview.js";
import { themeButton } from "./theme.js";
import { TokenForm } from "./tokenform.js";
import { TreeView } from "./treeview.js";
import { formatView, parseView } from "./url.js";

/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./url.js").ViewName} ViewName */

// In milliseconds: ages and the state of the line are shown anew so often.
const TICK = 250;

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

class App {
  constructor() {
    this.view = parseView(location.search, location.hash);
    this.model = new Model(false);
    /** The filter that the agent was asked for last: it is in the address once the agent takes it. */
    this.wanted = { words: this.view.words, isTyped: true };
    this.line = new Line(Date.now());
    this.isScheduled = false;
    this.pump = new Pump((records, bad) => {
      this.model.take(records, this.line, Date.now());
      this.model.bad += bad;
      this.schedule();
    });
    this.tokenForm = new TokenForm(this.view.token, () => this.start());
    this.search = new Search({
      onWords: (words, isTyped) => this.filter(words, isTyped),
      onLeave: () => focusOn(this.views[this.view.view].element),
    });
    this.status = new Status();
    this.connection = new Connection({
      line: this.line,
      pump: this.pump,
      positions: () => this.model.state.positions(),
      token: () => this.tokenForm.token,
      onBegin: (words, isNew) => this.begin(words, isNew),
      onInvalid: (words, sentence, isRefused) => {
        if (words === this.wanted.words) this.search.fail(sentence);
        if (words === this.view.words && isRefused) this.change({ words: "" }, true);
      },
      onChange: () => this.schedule(),
    });
    this.replay = new Replay({
      line: this.line,
      shown: () => this.model,
      onShow: (model) => this.showReplay(model),
      onChange: () => this.schedule(),
    });
    this.table = new TableView(({ sort, descending, columns, all }) => {
      this.change({ sort, descending, columns: [...(columns ?? [])], all }, true);
    }, () => this.clear());
    const onFilter = (/** @type {string[]} */ words) => this.addWords(words);
    const onSelect = (/** @type {Row} */ row) => this.openRow(row.key);
    this.views = {
      table: this.table,
      events: new EventsView((record) => this.openRow(keyOf(record))),
      tree: new TreeView({ onSelect, onFilter }),
      map: new MapView(onFilter),
    };
  }

  /** Put the views into the document, and begin. */
  run() {
    if (this.view.token) history.replaceState(null, "", this.address());
    for (const view of Object.values(this.views)) byId("view").append(view.element);
    for (const button of document.querySelectorAll("#views button")) {
      const name = /** @type {ViewName} */ (button.getAttribute("data-view"));
      button.addEventListener("click", () => this.change({ view: name }));
    }
    byId("pause").addEventListener("click", () => this.pause());
    byId("save").addEventListener("click", () => this.save());
    byId("help-open").addEventListener("click", () => this.help());
    themeButton(byId("theme"));
    listenToDrops(byId("drop"), (file) => void this.replay.file(file.stream(), file.name));
    listenToKeys({
      search: () => this.search.focus(),
      view: (view) => this.change({ view }),
      pause: () => this.pause(),
      help: () => this.help(),
      escape: () => this.escape(),
      move: (key, target) => pressIn(this.views[this.view.view].element, key, target),
    });
    addEventListener("popstate", () => {
      this.view = parseView(location.search, "");
      this.apply();
      if (this.model.isReplay) return;
      const { words } = this.view;
      this.wanted = { words, isTyped: true };
      this.search.set(words);
      this.start();
    });
    document.addEventListener("visibilitychange", () => this.schedule());
    setInterval(() => this.tick(), TICK);
    this.search.set(this.view.words);
    this.apply();
    this.start();
  }

  /** Connect to the agent, or read its recording. */
  start() {
    this.tokenForm.show(false);
    if (this.view.recording) void this.replay.ofAgent(this.tokenForm.token);
    else void this.connection.open(this.wanted.words);
  }

  /** A stream begins. @param {string} words @param {boolean} isNew */
  begin(words, isNew) {
    this.search.fail("");
    this.change({ words }, this.wanted.isTyped);
    if (isNew) this.model = new Model(false, words, this.model);
  }

  now() {
    return this.model.now(Date.now());
  }

  tick() {
    const line = this.line.state(Date.now());
    this.model.tick(this.now(), line.kind === "cut off");
    this.model.findSilent(this.line, Date.now());
    this.connection.check(Date.now());
    this.status.announce(Date.now());
    this.schedule();
  }

  schedule() {
    if (this.isScheduled || document.hidden) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      this.render();
    });
  }

  /** Show what changed; while the page is paused, only the state of the line. */
  render() {
    const line = this.line.state(Date.now());
    this.tokenForm.show(line.kind === "token");
    const live = /** @type {HTMLAnchorElement} */ (byId("live"));
    live.hidden = !this.model.isReplay || this.view.recording;
    live.href = this.address();
    this.status.renderLine(this.model, line);
    if (!line.paused) this.renderScreen();
  }

  renderScreen() {
    this.status.renderFigures(this.model.state, this.model.rates.series(this.now()));
    if (this.model.join(() => performance.now())) this.schedule();
    this.views[this.view.view].render(this.model, this.now());
  }

  /** Show what the address of the page says. */
  apply() {
    const { view, sort, descending, columns, all } = this.view;
    for (const [name, one] of Object.entries(this.views)) {
      if (name === view) one.show();
      else one.hide();
    }
    for (const button of document.querySelectorAll("#views button")) {
      if (button.getAttribute("data-view") === view) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
    this.table.setChoice({ sort, descending, columns: columns.length ? columns : null, all });
    this.renderScreen();
    this.line.caughtUp();
    this.schedule();
  }

  /** @param {Partial<import("./url.js").View>} change @param {boolean} replaces the address */
  change(change, replaces = false) {
    const before = this.address();
    const { view } = this.view;
    this.view = { ...this.view, ...change };
    if (this.address() === before) return;
    if (replaces) history.replaceState(null, "", this.address());
    else history.pushState(null, "", this.address());
    if (view !== this.view.view) this.apply();
  }

  address() {
    return location.pathname + formatView(this.view);
  }

  /** Subscribe to what matches. @param {string} words @param {boolean} isTyped */
  filter(words, isTyped) {
    if (this.model.isReplay) return;
    this.wanted = { words, isTyped };
    void this.connection.open(words);
  }

  /** @param {string[]} added */
  addWords(added) {
    if (this.model.isReplay) return;
    const words = [...new Set([...splitWords(this.view.words), ...added])];
    this.search.set(joinWords(words));
    this.filter(joinWords(words), false);
  }

  /** Show a row in the table, and its details. @param {string} key */
  openRow(key) {
    this.change({ view: "table" });
    this.table.open(key);
  }

  escape() {
    if (this.view.view !== "table" || !this.table.closeDetails()) this.clear();
  }

  /** Clear the filter, and go back to the view. */
  clear() {
    this.search.clear();
    focusOn(this.views[this.view.view].element);
  }

  pause() {
    if (this.line.paused) this.line.resume();
    else this.line.pause();
    const button = byId("pause");
    button.setAttribute("aria-pressed", String(this.line.paused));
    button.textContent = this.line.paused ? "Go on" : "Pause";
    this.schedule();
  }

  help() {
    const dialog = /** @type {HTMLDialogElement} */ (byId("help"));
    if (!dialog.open) dialog.showModal();
  }

  save() {
    const { state, log } = this.model;
    const time = new Date(this.now()).toISOString().slice(0, 19).replaceAll(":", "");
    const host = [...state.hosts.keys()].join("+").replace(/[^\w.+-]/g, "_");
    void save(`${host || "sockagent"}-${time}Z.ndjson`, recording(state, log));
  }

  /** Show a recording instead of the agent. @param {Model} model */
  showReplay(model) {
    this.connection.stop();
    this.pump.clear();
    this.search.disable();
    this.table.closeDetails();
    this.model = model;
  }
}

export const app = new App();
app.run();
