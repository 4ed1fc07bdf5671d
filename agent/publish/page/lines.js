// A list of which only the lines in view are in the document.

export const LINE_HEIGHT = 24;
// Lines above and below those in view, so that a scroll shows no gap before they are written.
const SPARE = 6;

/** The lines of a list in an element that scrolls. */
export class Lines {
  #length = 0;
  #element;
  #make;
  #fill;
  #space = document.createElement("div");
  /** Line `i` is in the element at `i` modulo the size. @type {HTMLElement[]} */
  #pool = [];
  /** Which line is in which element. @type {number[]} */
  #shown = [];

  /**
   * @param {HTMLElement} element
   * @param {() => HTMLElement} make
   * @param {(line: HTMLElement, index: number) => void} fill
   */
  constructor(element, make, fill) {
    this.#element = element;
    this.#make = make;
    this.#fill = fill;
    this.#space.className = "lines-space";
    this.#space.setAttribute("role", "presentation");
    element.classList.add("lines");
    element.append(this.#space);
    element.addEventListener("scroll", () => this.paint(), { passive: true });
    new ResizeObserver(() => requestAnimationFrame(() => this.#resize())).observe(element);
  }

  /** How many lines a key goes on by a page. */
  get page() {
    return Math.max(1, Math.floor(this.#element.clientHeight / LINE_HEIGHT) - 1);
  }

  /** How many lines there are. */
  get length() {
    return this.#length;
  }

  set length(length) {
    this.#length = length;
    this.#setHeight();
  }

  /** Leave room below the lines, so that the first one in view at the end is whole. */
  #setHeight() {
    const rest = this.#element.clientHeight % LINE_HEIGHT;
    this.#space.style.height = `${this.#length * LINE_HEIGHT + rest}px`;
  }

  #resize() {
    this.#setHeight();
    this.paint();
  }

  /** Write the lines in view; with `anew` also those that were written before. */
  paint(anew = false) {
    const { clientHeight, scrollTop } = this.#element;
    if (clientHeight === 0) return;
    const size = Math.ceil(clientHeight / LINE_HEIGHT) + 2 * SPARE;
    if (this.#pool.length < size) anew = true;
    while (this.#pool.length < size) {
      const line = this.#make();
      this.#pool.push(line);
      this.#space.append(line);
    }
    const begin = Math.max(0, Math.floor(scrollTop / LINE_HEIGHT) - SPARE);
    for (let index = begin; index < begin + this.#pool.length; index += 1) {
      const at = index % this.#pool.length;
      const line = this.#pool[at];
      line.hidden = index >= this.length;
      if (line.hidden || (!anew && this.#shown[at] === index)) continue;
      if (this.#shown[at] !== index) line.style.transform = `translateY(${index * LINE_HEIGHT}px)`;
      this.#shown[at] = index;
      this.#fill(line, index);
    }
  }

  /** Scroll as far as needed for a line to be in view. @param {number} index */
  reveal(index) {
    const { clientHeight, scrollTop } = this.#element;
    const top = index * LINE_HEIGHT;
    if (top < scrollTop) this.#element.scrollTop = top;
    else if (top + LINE_HEIGHT > scrollTop + clientHeight) {
      this.#element.scrollTop = top + LINE_HEIGHT - clientHeight + (clientHeight % LINE_HEIGHT);
    }
    this.paint();
  }
}

/**
 * Return the new place after a key, null if it is none that moves.
 * @param {string} key
 * @param {number} index the place before, -1 if there is none
 * @param {number} length
 * @param {number} page
 */
export function moved(key, index, length, page) {
  const steps = /** @type {Record<string, number>} */ ({
    ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity,
  });
  const step = steps[key];
  if (step === undefined || length === 0) return null;
  return Math.max(0, Math.min(length - 1, index + step));
}

/**
 * Return an element of a class with a text.
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {string} className
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Write a text where it differs. @param {Element} target @param {string} text */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
