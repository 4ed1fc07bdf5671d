"""Compare what ``sockagent --follow`` reports of connections with the truth.

Servers and clients make many short connections on loopback. Each report is compared with their logs
and with the destroy notices of the kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from ..agents import agent_at, installed
from . import verdict
from .databases import pgbench_tcp, pgbench_unix, redis
from .recorded import measure
from .workloads import (
    Kind,
    aborts,
    curl,
    curl_8,
    dns,
    forks,
    nginx_and_wrk,
    nginx_paced,
    one_descriptor,
    sequential,
    swaps,
)

KINDS = {
    "nginx": Kind(nginx_and_wrk, ("nginx", "wrk")),
    "nginx-paced": Kind(nginx_paced, ("nginx", "wrk")),
    "redis": Kind(redis, ("redis-server", "redis-benchmark")),
    "pgbench-tcp": Kind(pgbench_tcp),
    "pgbench-unix": Kind(pgbench_unix),
    "curl": Kind(curl, ("nginx", "curl")),
    "curl-8": Kind(curl_8, ("nginx", "curl")),
    "dns": Kind(dns),
    "forks": Kind(forks, intervals=(1.0,)),
    "aborts": Kind(aborts, intervals=(1.0,)),
    "sequential": Kind(sequential, intervals=(0.1,)),
    "swap-udp": Kind(swaps("udp"), intervals=(1.0,)),
    "swap-unix": Kind(swaps("unix"), intervals=(1.0,)),
    "one-descriptor": Kind(one_descriptor, intervals=(1.0,)),
}
# Share of the connections with --quick.
_QUICK_SHARE = 0.15


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench servers", description=__doc__)
    add = parser.add_argument
    add("--agent", type=Path, metavar="PATH", help="another checkout or executable of sockagent")
    add(
        "--interval",
        type=float,
        action="append",
        metavar="SECONDS",
        help="time between polls; may be repeated",
    )
    add("--only", metavar="NAME,...", help=f"some of {', '.join(KINDS)}")
    add("--quick", action="store_true", help="fewer connections, one interval each")
    add("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    add(
        "--alone",
        action="store_true",
        help="run in new namespaces, in which nothing else has sockets",
    )
    add("--keep", type=Path, metavar="DIRECTORY", help="keep records, notices and logs there")
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else list(KINDS)
    unknown = set(options.only) - KINDS.keys()
    if unknown:
        parser.error(f"argument --only: no workload named {', '.join(sorted(unknown))}")
    programs = {program for name in options.only for program in KINDS[name].programs}
    missing = [program for program in sorted(programs) if shutil.which(program) is None]
    if missing:
        parser.error(f"install {', '.join(missing)}, or choose other workloads with --only")
    if options.agent is not None and not os.access(options.agent, os.X_OK):
        parser.error(f"argument --agent: {options.agent} is not a checkout or an executable")
    if os.geteuid() != 0:
        parser.error("must run as root: other users cannot see the sockets of the servers")
    return options


def _restart_in_namespaces() -> None:
    """Execute this program again in new network and process namespaces with their own procfs, and
    with enough ports for PORT_CONNECTIONS."""
    unshare = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    ports = "echo 10000 65535 >/proc/sys/net/ipv4/ip_local_port_range"
    inside = ["sh", "-c", f'ip link set lo up && {ports} && exec "$@"', "sh"]
    rest = [one for one in sys.argv[1:] if one != "--alone"]
    os.execvp("unshare", [*unshare, *inside, sys.executable, "-m", "bench.servers", *rest])


def main() -> int:
    """Run the workloads and print the tables; return the exit status."""
    options = arguments()
    if options.alone:
        _restart_in_namespaces()
    command = (agent_at(options.agent, "sockagent") if options.agent else installed()).argv
    share = _QUICK_SHARE if options.quick else 1.0
    results: list[verdict.Result] = []
    with tempfile.TemporaryDirectory(prefix="bench-servers-") as scratch:
        root = options.keep or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        Path(scratch).chmod(0o755)
        for name in options.only:
            kind = KINDS[name]
            usual = kind.intervals[-1:] if options.quick else kind.intervals
            servers = root / name
            servers.mkdir(exist_ok=True)
            with kind.start(servers, share) as workload:
                for interval in options.interval or usual:
                    directory = servers / str(interval)
                    directory.mkdir(exist_ok=True)
                    began = time.monotonic()
                    run = measure(command, workload, directory, interval)
                    results.append(verdict.result(name, run))
                    took = time.monotonic() - began
                    print(f"{name} at {interval} s: {took:.0f} s", file=sys.stderr, flush=True)
    print(verdict.tables(results))
    if options.json:
        text = json.dumps([one.as_json() for one in results], indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
