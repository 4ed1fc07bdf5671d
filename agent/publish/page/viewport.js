// Which rows of a fixed height are in view, of as many as there are. Pure.

export const ROW_HEIGHT = 24;
// Rows above and below those in view, so that a scroll shows no gap before they are written.
const SPARE_ROWS = 6;
// Browsers limit the height of an element: Firefox to about 17.8 million pixels. With more rows, a
// pixel of the scroll bar stands for several of the rows.
export const MAX_HEIGHT = 15_000_000;

/** A part of a list of rows. Heights and places are in pixels. */
export class Viewport {
  /** The height of the part that shows rows. */
  height = 0;
  /** How many rows there are. */
  rows = 0;

  /** The height of the element that is scrolled. */
  get scrollHeight() {
    return Math.min(this.rows * ROW_HEIGHT, MAX_HEIGHT);
  }

  /** How many elements show the rows in view and some beside them. */
  get poolSize() {
    return this.height > 0 ? Math.ceil(this.height / ROW_HEIGHT) + 2 * SPARE_ROWS : 0;
  }

  /**
   * Return how many rows a key goes on; 0 for other keys.
   * @param {string} key
   */
  distance(key) {
    const page = Math.max(1, Math.floor(this.height / ROW_HEIGHT) - 1);
    switch (key) {
      case "ArrowDown":
        return 1;
      case "ArrowUp":
        return -1;
      case "PageDown":
        return page;
      case "PageUp":
        return -page;
      case "Home":
        return -Infinity;
      case "End":
        return Infinity;
      default:
        return 0;
    }
  }

  #scale() {
    const height = this.rows * ROW_HEIGHT;
    return height <= MAX_HEIGHT ? 1 : (height - this.height) / (MAX_HEIGHT - this.height);
  }

  /**
   * Return the place among all rows of the top of the view.
   * @param {number} scrollTop
   */
  top(scrollTop) {
    return scrollTop * this.#scale();
  }

  /**
   * Return the first row of the pool.
   * @param {number} scrollTop
   */
  first(scrollTop) {
    const first = Math.floor(this.top(scrollTop) / ROW_HEIGHT) - SPARE_ROWS;
    return Math.max(0, Math.min(first, this.rows - this.poolSize));
  }

  /**
   * Return where to scroll so that a place among the rows is the top of the view.
   * @param {number} top
   */
  scrollTo(top) {
    const last = Math.max(0, this.rows * ROW_HEIGHT - this.height);
    return Math.max(0, Math.min(top, last)) / this.#scale();
  }

  /**
   * Return where to scroll so that a row is in view: no further than needed.
   * @param {number} index
   * @param {number} scrollTop where the view is now
   */
  reveal(index, scrollTop) {
    const top = this.top(scrollTop);
    const start = index * ROW_HEIGHT;
    if (start < top) return this.scrollTo(start);
    const end = start + ROW_HEIGHT;
    return end > top + this.height ? this.scrollTo(end - this.height) : scrollTop;
  }
}
