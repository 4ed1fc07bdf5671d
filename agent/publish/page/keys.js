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
