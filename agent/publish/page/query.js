// The path of a subscription, and the words of a search. Pure.

/**
 * Return the words of a search: they are split at blanks, of which quotes keep those between them
 * (`comm="web worker"`).
 * @param {string} text
 * @returns {string[]}
 */
export function splitWords(text) {
  const found = text.match(/(?:"[^"]*"?|[^\s"])+/g) ?? [];
  return found.map((word) => word.replaceAll('"', "")).filter((word) => word !== "");
}

/**
 * Return the text of a search that has these words.
 * @param {string[]} words
 */
export function joinWords(words) {
  return words.map((word) => (/\s/.test(word) ? quoted(word) : word)).join(" ");
}

/** @param {string} word */
const quoted = (word) => word.replace(/^([A-Za-z_-]+!?=)?(.*)$/s, '$1"$2"');

/**
 * Return text for a query string, of which harmless characters stay readable.
 * @param {string} text
 */
export function encode(text) {
  return encodeURIComponent(text).replace(/%(3A|2F|2C|40|5B|5D)/g, decodeURIComponent);
}

/**
 * Return the path of a subscription: each word is a target, whose meaning the agent knows.
 * @param {string} text of the search
 * @param {[string, number][]} positions (epoch, seq) of each host after which to resume
 */
export function eventsPath(text, positions = []) {
  const parameters = splitWords(text).map((word) => `target=${encode(word)}`);
  for (const [epoch, seq] of positions) parameters.push(`epoch=${encode(epoch)}`, `since=${seq}`);
  return parameters.length ? `/events?${parameters.join("&")}` : "/events";
}
