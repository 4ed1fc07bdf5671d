// An order of nodes that small changes do not alter. Pure.

// A node keeps its place until another has more than this many times its connections, so that a
// small change moves nothing.
const MARGIN = 2;
const MARGIN_CONNECTIONS = 4;

/**
 * Return the order in which nodes are shown: that of before, unless another is much busier. A node
 * that has ended has a weight below 0: it keeps its place until another node needs it.
 * @param {string[]} before
 * @param {ReadonlyMap<string, number>} weights
 * @param {number} limit of the nodes; one more is shown rather than an "others" of one
 * @returns {string[]}
 */
export function arrange(before, weights, limit) {
  /** @param {string} id */
  const weight = (id) => weights.get(id) ?? 0;
  const shown = before.filter((id) => weights.has(id));
  const kept = new Set(shown);
  const others = [...weights.keys()].filter((id) => !kept.has(id))
    .sort((one, two) => weight(two) - weight(one) || (one < two ? -1 : 1));
  const room = weights.size === limit + 1 ? limit + 1 : limit;
  while (shown.length > room) {
    shown.splice(shown.indexOf(least(shown, weight)), 1);
  }
  const isFirst = before.length === 0;
  let next = 0;
  while (shown.length < room && next < others.length) shown.push(others[next++]);
  for (; next < others.length && !isFirst && shown.length; next += 1) {
    const last = least(shown, weight);
    if (weight(last) >= 0 && !isBusier(weight(others[next]), weight(last))) break;
    shown[shown.indexOf(last)] = others[next];
  }
  for (let at = 1; at < shown.length; at += 1) {
    for (let up = at; up > 0 && isBusier(weight(shown[up]), weight(shown[up - 1])); up -= 1) {
      [shown[up - 1], shown[up]] = [shown[up], shown[up - 1]];
    }
  }
  return shown;
}

/** @param {number} one @param {number} other */
const isBusier = (one, other) => one > MARGIN * Math.max(0, other) + MARGIN_CONNECTIONS;

/** @param {string[]} ids @param {(id: string) => number} weight */
function least(ids, weight) {
  return ids.reduce((found, id) => (weight(id) <= weight(found) ? id : found));
}
