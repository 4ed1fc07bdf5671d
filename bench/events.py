"""Compare what trace events report of connections with the truth, and what they cost.

Each workload runs without events and with them in turn. The times of connections in the logs of
nginx, Redis and PostgreSQL are rounded; delays that begin there are marked ~.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from . import torture
from .agents import agent_at, installed
from .servers import bars, verdict
from .servers.bars import Measured, Row
from .servers.databases import pgbench_tcp, redis
from .servers.recorded import measure
from .servers.workloads import Kind, aborts, curl_2000, forks, nginx_and_wrk

# The workloads, and how many seconds all of their connections take.
KINDS = {
    "nginx": (Kind(nginx_and_wrk, ("nginx", "wrk")), 5.0),
    "pgbench": (Kind(pgbench_tcp), 7.0),
    "redis": (Kind(redis, ("redis-server", "redis-benchmark")), 5.0),
    "curl": (Kind(curl_2000, ("nginx", "curl")), 12.0),
    "forks": (Kind(forks), 6.0),
    "aborts": (Kind(aborts), 4.0),
}
_INTERVAL = 1.0


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench events", description=__doc__)
    add = parser.add_argument
    add("--agent", type=Path, metavar="PATH", help="another checkout or executable of sockagent")
    add("--only", metavar="NAME,...", help=f"some of {', '.join(KINDS)}")
    add("--rounds", type=int, default=2, metavar="N", help="runs of each kind (default 2)")
    add("--seconds", type=float, metavar="SECONDS", help="fewer connections: of so many seconds")
    add("--interval", type=float, default=_INTERVAL, metavar="SECONDS", help="between polls")
    add("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    add("--keep", type=Path, metavar="DIRECTORY", help="keep records, notices and logs there")
    add(
        "--torture",
        nargs="?",
        const=",".join(torture.VARIANTS),
        metavar="VARIANT,...",
        help=f"churn for --seconds (default 60): some of {', '.join(torture.VARIANTS)}",
    )
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else list(KINDS)
    unknown = set(options.only) - KINDS.keys()
    if unknown:
        parser.error(f"argument --only: no workload named {', '.join(sorted(unknown))}")
    programs = {program for name in options.only for program in KINDS[name][0].programs}
    missing = [program for program in sorted(programs) if shutil.which(program) is None]
    if missing and not options.torture:
        parser.error(f"install {', '.join(missing)}, or choose other workloads with --only")
    if os.geteuid() != 0:
        parser.error("must run as root: other users may not read the events of the kernel")
    return options


def _rows(options: argparse.Namespace, command: tuple[str, ...], root: Path) -> list[Row]:
    """Run all workloads; print each row when it is known."""
    rows = []
    for name in options.only:
        kind, usual = KINDS[name]
        share = 1.0 if options.seconds is None else min(1.0, options.seconds / usual)
        directory = root / name
        directory.mkdir(exist_ok=True)
        pairs = []
        with kind.start(directory, share) as workload:
            for number in range(options.rounds):
                measured = {}
                for events in ("off", "on") if number % 2 == 0 else ("on", "off"):
                    into = directory / f"{number}-{events}"
                    into.mkdir(exist_ok=True)
                    argv = (*command, "--events", events)
                    run = measure(argv, workload, into, options.interval, measure_idle=True)
                    measured[events] = Measured(run, verdict.result(name, run))
                pairs.append((measured["off"], measured["on"]))
        rows.append(bars.row(name, pairs))
        print(f"{name}: {', '.join(bars.misses(rows[-1])) or 'all bars'}", file=sys.stderr)
    return rows


def main() -> int:
    """Run the workloads and print the table; return the exit status."""
    options = arguments()
    command = (agent_at(options.agent, "sockagent") if options.agent else installed()).argv
    with tempfile.TemporaryDirectory(prefix="bench-events-") as scratch:
        root = options.keep or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        Path(scratch).chmod(0o755)
        if options.torture:
            seconds = options.seconds or torture.SECONDS
            return torture.run(command, root, options.torture.split(","), seconds)
        rows = _rows(options, command, root)
    print(bars.table(rows))
    if options.json:
        text = json.dumps([asdict(one) for one in rows], indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
