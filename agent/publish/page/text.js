// Values as people read them, with the same words as the views of the terminal. Pure.

/** @typedef {import("./records.js").SocketRecord} SocketRecord */

const PLAIN = /^[\x20-\x7e]*$/;
// Controls, separators other than the space, formats (bidirectional and zero-width), surrogates,
// private and unassigned characters; and letters and marks without a picture.
const UNSAFE =
  /(?! )[\p{C}\p{Z}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\u{e0100}-\u{e01ef}]/gu;
const ANY_ADDRESSES = new Set(["0.0.0.0", "::"]);
const DIRECTIONS = { inbound: "in", outbound: "out", listen: "·" };
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** @type {[string, number][]} */
const SIZES = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]];

/**
 * Return text in which characters that are invisible or that reorder text are written as `\x1b`
 * or `\x{202e}`.
 * @param {string} text
 */
export function safe(text) {
  return PLAIN.test(text) ? text : text.replace(UNSAFE, escaped);
}

/** @param {string} char */
function escaped(char) {
  const code = /** @type {number} */ (char.codePointAt(0));
  const hex = code.toString(16);
  return code < 0x100 ? `\\x${hex.padStart(2, "0")}` : `\\x{${hex}}`;
}

/**
 * Return `ADDRESS:PORT`; any address and port 0 are `*`. `zone` is `%` and an interface.
 * @param {string | null | undefined} addr
 * @param {number | null | undefined} port
 */
export function address(addr, port, zone = "") {
  if (addr == null && port == null) return "-";
  let host = "*";
  if (addr) {
    if (addr.includes(":")) host = `[${addr === "::" ? "*" : addr}${zone}]`;
    else host = (ANY_ADDRESSES.has(addr) ? "*" : addr) + zone;
  }
  return safe(`${host}:${port || "*"}`);
}

/**
 * Return whether a socket is of the internet: TCP, UDP, raw.
 * @param {SocketRecord} record
 */
export const isInet = (record) => record.family === "inet" || record.family === "inet6";

/**
 * Return one end of a socket: address and port, or the path of a unix socket. Without a peer the
 * remote end is `*`, and of a unix socket `-`.
 * @param {SocketRecord} record
 * @param {"local" | "remote"} side
 */
export function endpoint(record, side) {
  if (side === "remote") {
    if (record.remote_addr == null) return record.family === "unix" ? "-" : "*";
    return address(record.remote_addr, record.remote_port);
  }
  if (isInet(record)) {
    const zone = record.interface ? `%${record.interface}` : "";
    return address(record.local_addr, record.local_port, zone);
  }
  if (record.family === "unix") return record.path == null ? "-" : safe(record.path);
  if (record.local_addr == null) return "-";
  return `${safe(record.local_addr)}:${record.local_port ?? "*"}`;
}

/**
 * Return both ends with an arrow from who called to who was called; without a peer the local end
 * only. Of a unix socket the other end is a process.
 * @param {SocketRecord} record
 */
export function ends(record) {
  let local = endpoint(record, "local");
  let remote;
  if (record.family === "unix") {
    if (record.path == null) local = "unnamed";
    if (record.peer_pid == null) return local;
    remote = `pid ${record.peer_pid}`;
  } else if (record.remote_addr == null) {
    return local;
  } else {
    remote = endpoint(record, "remote");
  }
  if (record.direction === "inbound") return `${remote} → ${local}`;
  if (record.direction === "outbound") return `${local} → ${remote}`;
  return `${local} – ${remote}`;
}

/**
 * Return whether a socket is of UDP, with a port and without a peer.
 * @param {SocketRecord} record
 */
export function isBoundUdp(record) {
  return (
    (record.proto === "udp" || record.proto === "udplite") && record.remote_addr == null &&
    Boolean(record.local_port)
  );
}

/**
 * Return whether a socket waits for callers: it listens, or it is UDP without a peer.
 * @param {SocketRecord} record
 */
export function listens(record) {
  return record.state === "LISTEN" || record.direction === "listen" || isBoundUdp(record);
}

/**
 * Return whether an address is of the machine itself.
 * @param {string | null | undefined} addr
 */
export function isLoopback(addr) {
  return addr != null && (/^(::ffff:)?127\./.test(addr) || addr === "::1");
}

/**
 * Return whether an address means all addresses of the machine.
 * @param {string | null | undefined} addr
 */
export function isAny(addr) {
  return addr != null && ANY_ADDRESSES.has(addr);
}

/**
 * Return `in`, `out`, `·` of what waits for callers, or `-`.
 * @param {SocketRecord} record
 */
export function direction(record) {
  if (record.direction !== null && record.direction in DIRECTIONS) {
    return DIRECTIONS[record.direction];
  }
  return isBoundUdp(record) ? "·" : "-";
}

/**
 * Return the process of a record as `nginx[812]`, `?` if it is unknown.
 * @param {SocketRecord} record
 */
export function process(record) {
  return record.pid === null ? "?" : `${safe(record.comm ?? "?")}[${record.pid}]`;
}

/**
 * Return the name of the owner of a socket, or else its user id; `-` if it is unknown.
 * @param {SocketRecord} record
 */
export function user(record) {
  if (record.user != null) return safe(record.user);
  return record.uid == null ? "-" : String(record.uid);
}

/**
 * Return the receive queue; of a listener the accept queue: `129/128`.
 * @param {SocketRecord} record
 */
export function queue(record) {
  if (record.recv_q == null) return "-";
  if (record.state === "LISTEN" && record.backlog != null) {
    return `${record.recv_q}/${record.backlog}`;
  }
  return String(record.recv_q);
}

/**
 * Return whether the accept queue of a listener takes no more connections.
 * @param {SocketRecord} record
 */
export function isQueueFull(record) {
  return (
    record.state === "LISTEN" && record.recv_q != null && record.backlog != null &&
    record.recv_q > record.backlog
  );
}

/**
 * Return a duration as one number with its unit: `12s`, `4m`, `3h`, `2d`.
 * @param {number} ms
 */
export function age(ms) {
  if (ms < MINUTE) return `${Math.max(0, Math.floor(ms / SECOND))}s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)}m`;
  return ms < 2 * DAY ? `${Math.floor(ms / HOUR)}h` : `${Math.floor(ms / DAY)}d`;
}

/**
 * Return a duration: `1.0 s`, `4 m 12 s`, `3 h 5 m`, `2 d 4 h`.
 * @param {number} ms
 */
export function duration(ms) {
  if (ms < MINUTE) return `${(Math.max(0, ms) / SECOND).toFixed(1)} s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} m ${Math.floor((ms % MINUTE) / SECOND)} s`;
  if (ms < DAY) return `${Math.floor(ms / HOUR)} h ${Math.floor((ms % HOUR) / MINUTE)} m`;
  return `${Math.floor(ms / DAY)} d ${Math.floor((ms % DAY) / HOUR)} h`;
}

/**
 * Return a number with separators of thousands: `3,639`.
 * @param {number} value
 */
export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/**
 * Return a number with its noun: `1 socket`, `3,639 sockets`, `2 processes`.
 * @param {number} value
 * @param {string} noun
 */
export function counted(value, noun) {
  if (value === 1) return `1 ${noun}`;
  return `${count(value)} ${noun}${noun.endsWith("s") ? "es" : "s"}`;
}

/**
 * Return how many rows are of other sockets than those of the internet, as a sentence: `Not shown:
 * 158 unix, 9 netlink`; empty if there are none.
 * @param {Iterable<{record: SocketRecord}>} rows
 */
export function notShown(rows) {
  /** @type {Map<string, number>} */
  const kinds = new Map();
  for (const { record } of rows) {
    if (isInet(record)) continue;
    const kind = record.proto ?? "?";
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  const sorted = [...kinds].sort(([one, many], [other, more]) =>
    more - many || (one < other ? -1 : 1));
  if (sorted.length === 0) return "";
  return `Not shown: ${sorted.map(([kind, number]) => `${count(number)} ${safe(kind)}`).join(", ")}`;
}

/**
 * Return a number of bytes in decimal units: `512 B`, `3.4 kB`.
 * @param {number} value
 */
export function bytes(value) {
  for (const [unit, size] of SIZES) {
    if (value >= size) return `${(value / size).toFixed(1)} ${unit}`;
  }
  return `${value} B`;
}

/**
 * Return the local time of the day: `03:12:04`.
 * @param {number} ms since the Unix epoch
 */
export function clock(ms) {
  const time = new Date(ms);
  return [time.getHours(), time.getMinutes(), time.getSeconds()]
    .map((value) => String(value).padStart(2, "0"))
    .join(":");
}
