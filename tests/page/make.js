// Records for the tests.

export const HOST = "web1";

/** @param {number} second @returns {string} */
export const at = (second) => new Date(Date.UTC(2026, 10, 28, 3, 12, second)).toISOString();

/** The record of an event, with the number and the second of its time. */
export function head(event, seq = 0, host = HOST) {
  return { event, seq, time: at(seq), host };
}

export function hello(seq = 0, { epoch = "e1", resumed = false, host = HOST } = {}) {
  return {
    ...head("hello", seq, host), schema: 1, version: "0.1.0", boot_id: null, epoch, interval: 1,
    resumed, complete: true, processes: 40, unreadable: 0, netns: 1, missing: [], events: false,
    events_off: "off",
  };
}

/** A record of a TCP socket. */
export function tcp(event, seq, pid, inode, more = {}) {
  return {
    ...head(event, seq), proto: "tcp", family: "inet", state: "ESTABLISHED",
    local_addr: "10.0.0.4", local_port: 443, remote_addr: "10.0.0.9", remote_port: 51515,
    interface: null, direction: "inbound", recv_q: 0, send_q: 0, inode, netns: 4026531840, uid: 33,
    user: "www-data", source: "netlink", pid, fds: [3], fd_count: 1, comm: "nginx",
    exe: "/usr/sbin/nginx", ppid: 1, start_time: at(0), cgroup: "/system.slice/web.service",
    unit: "web.service", container: null, ...more,
  };
}

export const end = (seq, count, host = HOST) => ({ ...head("snapshot_end", seq, host), count });
export const lost = (seq, from, to, host = HOST) => ({ ...head("lost", seq, host), from, to });

/** A generator of pseudo-random numbers in [0, 1), the same for a seed (mulberry32). */
export function random(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
