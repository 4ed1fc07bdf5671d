// Parts of the map that stay as they are.

import { element } from "./lines.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * Return an element of SVG.
 * @template {keyof SVGElementTagNameMap} Name
 * @param {Name} name
 * @returns {SVGElementTagNameMap[Name]}
 */
export const svg = (name) => document.createElementNS(SVG, name);

/** Return the head of the arrows of lines. @param {string} id */
export function arrow(id) {
  const marker = svg("marker");
  const attributes = {
    id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto",
    markerUnits: "userSpaceOnUse",
  };
  for (const [name, value] of Object.entries(attributes)) marker.setAttribute(name, String(value));
  const path = svg("path");
  path.setAttribute("d", "M0,0L8,4L0,8z");
  marker.append(path);
  return marker;
}

/** Return what the lines mean. */
export function legend() {
  const made = element("ul", "map-legend");
  made.setAttribute("aria-label", "Legend");
  for (const [kind, text] of [
    ["", "connections, wider where there are more"], ["is-bad", "13 CW: 13 sockets in CLOSE_WAIT"],
    ["is-dashed", "ambiguous: several hosts fit"],
  ]) {
    const item = element("li", `map-key ${kind}`);
    item.append(element("i"), text);
    made.append(item);
  }
  made.append(element("li", "map-remark",
    "Ends without an agent are put together by /24 or /64. Connections whose addresses are " +
    "translated on the way (NAT) are not joined."));
  return made;
}
