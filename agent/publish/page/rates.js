// How many sockets opened and closed in each of the last seconds, and how many were in
// CLOSE_WAIT. Pure: the time is an argument.

/**
 * The newest seconds, the oldest first; null where nothing is known.
 * @typedef {object} Series
 * @property {(number | null)[]} opens
 * @property {(number | null)[]} closes
 * @property {(number | null)[]} closeWait
 */

/** @typedef {{second: number, opens: number, closes: number, closeWait: number | null, gap: boolean}} Slot */

export class Rates {
  /** @param {number} seconds how many are kept */
  constructor(seconds = 60) {
    this.seconds = seconds;
    // One more for the second that is not over.
    this._size = seconds + 1;
    /** @type {Slot[]} */
    this._slots = [];
    this._first = Infinity;
  }

  /** Count a socket that opened. @param {number} time in ms since the Unix epoch */
  open(time) {
    this._slot(time).opens += 1;
  }

  /** Count a socket that closed. @param {number} time */
  close(time) {
    this._slot(time).closes += 1;
  }

  /** Take down how many sockets are in CLOSE_WAIT now. @param {number} now @param {number} value */
  gauge(now, value) {
    this._slot(now).closeWait = value;
  }

  /** Take down that records of this second are missing. @param {number} time */
  gap(time) {
    this._slot(time).gap = true;
  }

  /**
   * Return the whole seconds before now. A second without a change has the number 0; of CLOSE_WAIT
   * it has the number of the second before.
   * @param {number} now
   * @returns {Series}
   */
  series(now) {
    const end = Math.floor(now / 1000);
    /** @type {Series} */
    const found = { opens: [], closes: [], closeWait: [] };
    /** @type {number | null} */
    let gauge = null;
    for (let second = end - this.seconds; second < end; second += 1) {
      const slot = this._slots[second % this._size];
      const is = slot !== undefined && slot.second === second;
      const known = second >= this._first && !(is && slot.gap);
      if (is && slot.closeWait !== null) gauge = slot.closeWait;
      found.opens.push(known ? (is ? slot.opens : 0) : null);
      found.closes.push(known ? (is ? slot.closes : 0) : null);
      found.closeWait.push(known ? gauge : null);
    }
    return found;
  }

  /** @param {number} time @returns {Slot} */
  _slot(time) {
    const second = Math.floor(time / 1000);
    this._first = Math.min(this._first, second);
    const index = second % this._size;
    const slot = this._slots[index];
    if (slot !== undefined && slot.second >= second) {
      // What is older than all that is kept counts nowhere.
      return slot.second === second ? slot : emptySlot(second);
    }
    return (this._slots[index] = emptySlot(second));
  }
}

/** @param {number} second @returns {Slot} */
const emptySlot = (second) => ({ second, opens: 0, closes: 0, closeWait: null, gap: false });

/**
 * Return the average of the known values of the newest seconds, null if none is known.
 * @param {(number | null)[]} values
 * @param {number} seconds
 */
export function average(values, seconds) {
  const known = values.slice(-seconds).filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}
