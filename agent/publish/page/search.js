// The field of the filter: what is typed is applied when typing stops.

// So long after the last key.
const DEBOUNCE = 300;
const NO_AGENT = "off: only an agent filters; use sockagent --read FILE nginx";

export class Search {
  /** @param {{onWords: (words: string, isTyped: boolean) => void, onLeave: () => void}} options */
  constructor({ onWords, onLeave }) {
    this._onWords = onWords;
    this._input = /** @type {HTMLInputElement} */ (document.getElementById("words"));
    this._error = /** @type {HTMLElement} */ (document.getElementById("search-error"));
    this._applied = "";
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this._timer = undefined;
    this._input.addEventListener("input", () => {
      clearTimeout(this._timer);
      this._timer = setTimeout(() => this._apply(true), DEBOUNCE);
    });
    document.getElementById("search")?.addEventListener("submit", (event) => {
      event.preventDefault();
      this._apply(false);
      this._input.blur();
      onLeave();
    });
    this._input.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      if (this._input.value !== "") {
        this._clear();
        return;
      }
      this._input.blur();
      onLeave();
    });
  }

  /** Show words that were applied already. @param {string} words */
  set(words) {
    clearTimeout(this._timer);
    this._applied = words;
    if (this._input.value.trim() !== words) this._input.value = words;
    this.fail("");
  }

  focus() {
    this._input.focus();
    this._input.select();
  }

  /** Clear and leave the field. */
  clear() {
    this._input.blur();
    this._clear();
  }

  _clear() {
    this._input.value = "";
    this._apply(false);
  }

  /** Show why the words are refused; nothing if the sentence is empty. @param {string} sentence */
  fail(sentence) {
    this._error.textContent = sentence;
    this._error.hidden = sentence === "";
    this._input.setAttribute("aria-invalid", String(sentence !== ""));
  }

  /** Take no more words: no agent is there to apply them. The field says so, and can be read. */
  disable() {
    this.set("");
    this._input.readOnly = true;
    this._input.placeholder = this._input.title = NO_AGENT;
  }

  /** @param {boolean} isTyped */
  _apply(isTyped) {
    clearTimeout(this._timer);
    const words = this._input.value.trim();
    if (words === this._applied) return;
    this.fail("");
    this._applied = words;
    this._onWords(words, isTyped);
  }
}
