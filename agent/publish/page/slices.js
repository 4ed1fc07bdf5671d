// Work that is done not too often, and in slices, so that the page stays responsive.

// After as many milliseconds the browser may paint and take input. A frame has 16.
const SLICE = 8;
// To ask for the time takes as long as the work for some items.
const ITEMS = 64;

/**
 * Call a function with each item.
 * @template T
 * @param {readonly T[]} items
 * @param {(item: T) => void} each
 */
export async function inSlices(items, each) {
  let end = performance.now() + SLICE;
  for (let begin = 0; begin < items.length; begin += ITEMS) {
    for (const item of items.slice(begin, begin + ITEMS)) each(item);
    if (performance.now() < end) continue;
    await nextTask();
    end = performance.now() + SLICE;
  }
}

/** Wait until the browser had its turn. @returns {Promise<void>} */
export function nextTask() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** Runs a function at most once in an interval; the last request is never left out. */
export class Throttle {
  #interval;
  #run;
  #last = -Infinity;
  #timer = 0;
  #isRunning = false;
  #isWanted = false;

  /** @param {number} interval in ms @param {() => Promise<void>} run */
  constructor(interval, run) {
    this.#interval = interval;
    this.#run = run;
  }

  /** Run the function now, or when the interval is over. @param {boolean} isUrgent always now */
  request(isUrgent = false) {
    if (this.#timer && !isUrgent) return;
    const wait = this.#last + this.#interval - performance.now();
    if (wait <= 0 || this.#isRunning || isUrgent) void this.now();
    else this.#timer = window.setTimeout(() => void this.now(), wait);
  }

  /** Run the function now, or again when it has ended. */
  async now() {
    this.cancel();
    this.#isWanted = this.#isRunning;
    if (this.#isRunning) return;
    this.#isRunning = true;
    try {
      await this.#run();
    } finally {
      this.#isRunning = false;
      this.#last = performance.now();
    }
    if (this.#isWanted) this.request();
  }

  /** Drop a request that waits. */
  cancel() {
    window.clearTimeout(this.#timer);
    this.#timer = 0;
  }
}
