// Recordings: saved to a file, and read from one that is dropped on the page or that the agent has.

/** @typedef {import("./pump.js").Pump} Pump */

// After as many milliseconds of work the browser may paint.
const SLICE = 8;
const PART = 1024;

/** Wait until the browser has had time to paint. @returns {Promise<void>} */
const pause = () => new Promise((resolve) => setTimeout(resolve));

/**
 * Save lines as a file.
 * @param {string} name
 * @param {(() => string)[]} lines
 */
export async function save(name, lines) {
  /** @type {Blob[]} */
  const parts = [];
  let end = performance.now() + SLICE;
  for (let index = 0; index < lines.length; index += PART) {
    let text = "";
    for (const line of lines.slice(index, index + PART)) {
      text += line();
      if (performance.now() < end) continue;
      await pause();
      end = performance.now() + SLICE;
    }
    parts.push(new Blob([text]));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type: "application/x-ndjson" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // A browser may ask where to save.
}

/**
 * Pass the lines of a file on, part by part.
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} stream
 * @param {string} name a suffix of .gz is decompressed
 * @param {Pump} pump
 */
export async function replay(stream, name, pump) {
  const bytes = name.endsWith(".gz") ? stream.pipeThrough(new DecompressionStream("gzip")) : stream;
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const text = rest + value;
    const end = text.lastIndexOf("\n") + 1;
    rest = text.slice(end);
    if (end > 0) pump.push(text.slice(0, end));
    await pump.drained();
  }
  if (rest.trim() !== "") pump.push(rest); // The last line may be cut off.
  await pump.drained();
}

/**
 * Take files that are dropped on the page.
 * @param {HTMLElement} hint shown while a file is above the page
 * @param {(file: File) => void} onFile
 */
export function listenToDrops(hint, onFile) {
  const hasFile = (/** @type {DragEvent} */ event) =>
    event.dataTransfer?.types.includes("Files") ?? false;
  document.addEventListener("dragover", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    hint.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) hint.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    hint.hidden = true;
    const file = event.dataTransfer?.files[0];
    if (file === undefined) return;
    event.preventDefault();
    onFile(file);
  });
}
