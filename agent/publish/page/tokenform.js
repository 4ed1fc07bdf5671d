// The token of the agent: from the address, from this tab's storage, or from a form.

const KEY = "sockagent.token";

/** @returns {string} */
function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // The browser forbids storage.
  }
}

/** @param {string} token */
function store(token) {
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // It is kept in memory only.
  }
}

export class TokenForm {
  /**
   * @param {string} given the token in the address, which counts more than the stored one
   * @param {() => void} onToken
   */
  constructor(given, onToken) {
    this.token = given || stored();
    if (given) store(given);
    this._panel = /** @type {HTMLElement} */ (document.getElementById("token"));
    this._reason = /** @type {HTMLElement} */ (document.getElementById("token-reason"));
    this._input = /** @type {HTMLInputElement} */ (document.getElementById("token-text"));
    document.getElementById("token-form")?.addEventListener("submit", (event) => {
      event.preventDefault();
      this.token = this._input.value.trim();
      store(this.token);
      this._input.value = "";
      onToken();
    });
  }

  /** Show or hide the form. @param {boolean} isShown */
  show(isShown) {
    if (isShown !== this._panel.hidden) return;
    this._reason.textContent = this.token ? "The agent does not know this token." : "";
    this._panel.hidden = !isShown;
    if (isShown) this._input.focus();
  }
}
