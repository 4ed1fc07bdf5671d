// Networks of addresses, by which ends without an agent are put together. Pure.

import { unmapped } from "./peers.js";
import { isLoopback } from "./text.js";

const IPV6_GROUPS = 8;
export const LOOPBACK = "loopback";

/**
 * Return the network of an address: /24 of IPv4, /64 of IPv6, or loopback.
 * @param {string} address
 */
export function networkOf(address) {
  if (isLoopback(address)) return LOOPBACK;
  const plain = unmapped(address);
  if (!plain.includes(":")) return `${plain.slice(0, plain.lastIndexOf("."))}.0/24`;
  const [head, tail] = plain.split("::");
  const groups = head === "" ? [] : head.split(":");
  const last = tail ? tail.split(":") : [];
  while (tail !== undefined && groups.length + last.length < IPV6_GROUPS) groups.push("0");
  const first = [...groups, ...last].slice(0, IPV6_GROUPS / 2);
  while (first.length && Number.parseInt(first[first.length - 1], 16) === 0) first.pop();
  return `${first.join(":")}::/64`;
}
