// The keys of the page. Those of the views are their own.

import { VIEWS } from "./url.js";

/** @typedef {import("./url.js").ViewName} ViewName */
/**
 * @typedef {object} Actions
 * @property {() => void} search
 * @property {(view: ViewName) => void} view
 * @property {() => void} pause
 * @property {() => void} help
 * @property {() => void} escape
 * @property {(key: string, target: Node) => boolean} move moves the selection of the view; returns
 *   whether it did
 */

/** Space presses a button and checks a box. @param {EventTarget | null} target */
const isPressed = (target) =>
  target instanceof HTMLButtonElement ||
  (target instanceof HTMLInputElement && target.type === "checkbox");

/** Take keys. @param {Actions} actions */
export function listenToKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
    if (document.querySelector("dialog[open]") !== null) return; // Esc closes it by itself.
    if (event.key === "Escape") {
      actions.escape();
      return;
    }
    const { target } = event;
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const isField = target instanceof HTMLInputElement || target instanceof HTMLSelectElement;
      if (!isField && target instanceof Node && actions.move(event.key, target)) {
        event.preventDefault();
      }
      return;
    }
    if (target instanceof HTMLInputElement && !isPressed(target)) return;
    const view = VIEWS[Number(event.key) - 1];
    if (event.key === "/") actions.search();
    else if (event.key === "?") actions.help();
    else if (view !== undefined) actions.view(view);
    else if (event.key === " " && !isPressed(target)) actions.pause();
    else return;
    event.preventDefault();
  });
}

/** What takes the keys of a view. @param {HTMLElement} view */
const partWithKeys = (view) =>
  view.querySelector("[role=grid], [role=listbox], [role=tree], .map-canvas");

/** Focus what takes the keys of a view; of the map, the box that was chosen last.
 * @param {HTMLElement} view */
export function focusOn(view) {
  const part = partWithKeys(view);
  const inner = part?.matches(".map-canvas") ? part.querySelector('[tabindex="0"]') : part;
  if (inner instanceof HTMLElement) inner.focus();
}

/**
 * Pass on a key to a view that has not had it. Return whether it was passed on.
 * @param {HTMLElement} view
 * @param {string} key
 * @param {Node} target what has the focus
 */
export function pressIn(view, key, target) {
  const part = partWithKeys(view);
  if (part === null || part.contains(target)) return false;
  focusOn(view);
  part.dispatchEvent(new KeyboardEvent("keydown", { key }));
  return true;
}
