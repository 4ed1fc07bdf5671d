// The rows in the order of a column. A few changed rows are merged into the sorted ones, which costs
// one pass over them instead of a sort. Pure: the time is an argument.

/** @typedef {import("./state.js").Row} Row */
/** @typedef {import("./columns.js").Column} Column */
/** @typedef {import("./columns.js").Context} Context */
/** @typedef {string | number | null} SortKey */

/**
 * A row in the table. `serial` orders rows whose sort keys are equal; `closedAt` is when its socket
 * closed, null while it is open.
 * @typedef {{row: Row, sortKey: SortKey, serial: number, closedAt: number | null}} Entry
 */

/** For how many milliseconds a closed row stays, struck through. */
export const LINGER = 2000;
// With more closed rows than this, the oldest go at once: a burst of closes must not fill the table.
const MAX_CLOSED = 2000;
// Other ends are looked up in some 2 µs: as many as cost about 10 ms.
const MAX_MARKED = 5000;

/**
 * Return what compares entries. Null is not compared: rows without a value stand last.
 * @param {boolean} descending
 * @returns {(a: Entry, b: Entry) => number}
 */
function comparer(descending) {
  return (a, b) => {
    const x = a.sortKey;
    const y = b.sortKey;
    if (x === y) return a.serial - b.serial;
    if (x === null || y === null) return x === null ? 1 : -1;
    return x < y === descending ? 1 : -1;
  };
}

/**
 * Return rows sorted by a column; rows of equal values stay in their order, those without a value
 * stand last.
 * @param {Iterable<Row>} rows
 * @param {Column} column
 * @param {boolean} descending
 * @param {Context} context
 * @returns {Row[]}
 */
export function sortRows(rows, column, descending, context) {
  const entries = Array.from(rows, (row, serial) => {
    return { row, sortKey: column.key(row, context), serial, closedAt: null };
  });
  return entries.sort(comparer(descending)).map((entry) => entry.row);
}

/** The entries of the table, kept in the order of one column. */
export class Order {
  /** The entries as they are shown. The array is replaced when the order changes.
   * @type {Entry[]} */
  entries = [];
  /** @type {Map<string, Entry>} */
  #byKey = new Map();
  /** Entries to put in order, and whether they are listed now. @type {Map<Entry, boolean>} */
  #dirty = new Map();
  /** Closed entries, the oldest first. @type {Set<Entry>} */
  #closed = new Set();
  #rebuild = false;
  /** Which rows have entries. @type {(row: Row) => boolean} */
  #isListed = () => true;
  #serial = 0;
  /**
   * The entries at which #mark() has not looked in this turn; null outside one. An iterator that
   * rests keeps all entries that a map ever had when it grew.
   * @type {Iterator<Entry> | null}
   */
  #turn = null;
  #column;
  #descending;

  /**
   * @param {Column} column
   * @param {boolean} descending
   */
  constructor(column, descending) {
    this.#column = column;
    this.#descending = descending;
  }

  /** The column that orders the entries. */
  get column() {
    return this.#column;
  }

  /** Whether the order is from the greatest to the least. */
  get descending() {
    return this.#descending;
  }

  /** How many entries there are, also those that are not in order yet. */
  get size() {
    return this.#byKey.size;
  }

  /**
   * Return the entry of a key, undefined if there is none.
   * @param {string} key
   * @returns {Entry | undefined}
   */
  get(key) {
    return this.#byKey.get(key);
  }

  /**
   * Sort by a column at the next settle(); entries of equal values keep their present order.
   * @param {Column} column
   * @param {boolean} descending
   */
  sortBy(column, descending) {
    this.#column = column;
    this.#descending = descending;
    this.#rebuild = true;
    this.entries.forEach((entry, index) => (entry.serial = index));
    this.#serial = Math.max(this.#serial, this.entries.length);
  }

  /**
   * List only some rows, from the next take() of all rows on.
   * @param {(row: Row) => boolean} isListed does not change while a row is open
   */
  listOnly(isListed) {
    this.#isListed = isListed;
  }

  /**
   * Take changes of the state. The rows of known entries are replaced at once, the order changes
   * at the next settle().
   * @param {{added: Row[], updated: Row[], removed: string[], all: boolean}} changes
   * @param {Map<string, Row>} rows all rows, read if `changes.all`
   * @param {number} now
   */
  take(changes, rows, now) {
    if (changes.all) {
      const known = this.#byKey;
      this.#byKey = new Map();
      this.#turn = null;
      this.#closed.clear();
      this.#dirty.clear();
      for (const [key, row] of rows) {
        if (this.#isListed(row)) this.#byKey.set(key, this.#renewed(known.get(key), row));
      }
      this.#rebuild = true;
      return;
    }
    for (const key of changes.removed) this.#remove(key, now);
    for (const row of changes.added) this.#put(row);
    for (const row of changes.updated) this.#put(row);
  }

  /**
   * @param {Entry | undefined} entry
   * @param {Row} row
   * @returns {Entry}
   */
  #renewed(entry, row) {
    if (entry === undefined) return { row, sortKey: null, serial: this.#serial++, closedAt: null };
    entry.row = row;
    entry.closedAt = null;
    return entry;
  }

  /** @param {Row} row */
  #put(row) {
    const known = this.#byKey.get(row.key);
    if (known === undefined && !this.#isListed(row)) return;
    const entry = this.#renewed(known, row);
    if (known === undefined) {
      this.#byKey.set(row.key, entry);
      this.#dirty.set(entry, false);
      return;
    }
    this.#closed.delete(entry);
    if (!this.#dirty.has(entry)) this.#dirty.set(entry, true);
  }

  /**
   * @param {string} key
   * @param {number} now
   */
  #remove(key, now) {
    const entry = this.#byKey.get(key);
    if (entry === undefined || entry.closedAt !== null) return;
    if (this.#dirty.get(entry) === false) {
      // It closed before it was listed.
      this.#dirty.delete(entry);
      this.#byKey.delete(key);
      return;
    }
    entry.closedAt = now;
    this.#closed.add(entry);
  }

  /**
   * Put what changed in order, and drop rows that closed some time ago. Return whether `entries`
   * is new.
   * @param {number} now
   * @param {Context} context
   * @returns {boolean}
   */
  settle(now, context) {
    const gone = this.#expired(now);
    const compare = comparer(this.#descending);
    if (this.#rebuild) {
      // A sort costs little where most are in order.
      const listed = this.entries.filter((entry) => this.#byKey.get(entry.row.key) === entry);
      const entries = [...new Set([...listed, ...this.#byKey.values()])];
      for (const entry of entries) entry.sortKey = this.#column.key(entry.row, context);
      this.entries = entries.sort(compare);
      this.#rebuild = false;
      this.#dirty.clear();
      return true;
    }
    if (this.#column.joined) this.#mark();
    else this.#turn = null;
    /** @type {Set<Entry>} */
    const leaving = new Set(gone);
    /** @type {Entry[]} */
    const coming = [];
    for (const [entry, listed] of this.#dirty) {
      if (gone.has(entry)) continue;
      const key = this.#column.key(entry.row, context);
      if (listed && key === entry.sortKey) continue;
      entry.sortKey = key;
      coming.push(entry);
      if (listed) leaving.add(entry);
    }
    this.#dirty.clear();
    if (coming.length === 0 && leaving.size === 0) return false;
    this.entries = merged(this.entries, leaving, coming.sort(compare), compare);
    return true;
  }

  /** Look at some entries anew: the sort keys of a joined column change without their rows. */
  #mark() {
    this.#turn ??= this.#byKey.values();
    for (let looks = 0; looks < MAX_MARKED; looks++) {
      const { value, done } = this.#turn.next();
      if (done) {
        this.#turn = null;
        return;
      }
      if (!this.#dirty.has(value)) this.#dirty.set(value, true);
    }
  }

  /**
   * @param {number} now
   * @returns {Set<Entry>}
   */
  #expired(now) {
    /** @type {Set<Entry>} */
    const gone = new Set();
    for (const entry of this.#closed) {
      const surplus = this.#closed.size > MAX_CLOSED;
      if (!surplus && entry.closedAt !== null && entry.closedAt + LINGER > now) break;
      this.#closed.delete(entry);
      this.#byKey.delete(entry.row.key);
      gone.add(entry);
    }
    return gone;
  }
}

/**
 * Return sorted entries without those that leave, and with those that come, which are sorted too.
 * @param {Entry[]} entries
 * @param {Set<Entry>} leaving
 * @param {Entry[]} coming
 * @param {(a: Entry, b: Entry) => number} compare
 * @returns {Entry[]}
 */
function merged(entries, leaving, coming, compare) {
  /** @type {Entry[]} */
  const result = [];
  let next = 0;
  for (const entry of entries) {
    if (leaving.has(entry)) continue;
    for (; next < coming.length && compare(coming[next], entry) < 0; next++) {
      result.push(coming[next]);
    }
    result.push(entry);
  }
  while (next < coming.length) result.push(coming[next++]);
  return result;
}
