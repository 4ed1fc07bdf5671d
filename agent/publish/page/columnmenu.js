// The menu of the columns: a box for each.

import { COLUMNS } from "./columns.js";

/** A button that opens a list of check boxes. */
export class ColumnMenu {
  element = document.createElement("details");
  #summary = document.createElement("summary");
  /** @type {Map<string, HTMLInputElement>} */
  #boxes = new Map();

  /** @param {(ids: string[] | null) => void} onChange gets null for the columns shown first */
  constructor(onChange) {
    this.element.className = "column-menu";
    this.element.setAttribute("aria-label", "Columns");
    this.#summary.textContent = "columns";
    const list = document.createElement("fieldset");
    const legend = document.createElement("legend");
    legend.textContent = "Columns of the table";
    list.append(legend, ...[...COLUMNS.values()].map((column) => this.#choice(column)));
    const reset = document.createElement("button");
    reset.type = "button";
    reset.textContent = "usual columns";
    reset.addEventListener("click", () => onChange(null));
    list.append(reset);
    list.addEventListener("change", () => {
      onChange([...this.#boxes].filter(([, box]) => box.checked).map(([id]) => id));
    });
    this.element.append(this.#summary, list);
    this.element.addEventListener("keydown", (event) => {
      // Space opens the menu, and does not pause the page.
      if (event.key === " ") event.stopPropagation();
      if (event.key !== "Escape" || !this.element.open) return;
      event.stopPropagation();
      this.#close();
      this.#summary.focus();
    });
    document.addEventListener("pointerdown", (event) => {
      if (event.target instanceof Node && !this.element.contains(event.target)) this.#close();
    });
  }

  /**
   * Check the boxes of some columns.
   * @param {readonly string[]} ids
   */
  setColumns(ids) {
    for (const [id, box] of this.#boxes) box.checked = ids.includes(id);
  }

  #close() {
    this.element.open = false;
  }

  /** @param {import("./columns.js").Column} column */
  #choice({ id, title, help }) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    const note = document.createElement("small");
    box.type = "checkbox";
    note.textContent = help;
    label.append(box, title, note);
    this.#boxes.set(id, box);
    return label;
  }
}
