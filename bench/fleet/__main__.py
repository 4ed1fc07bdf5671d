"""Kill the processes of a fleet at random, and compare what its consumers recorded with the truth;
or measure a fleet of many hosts (--hosts).

Three hosts change 450 sockets a second each. A publisher for each, a broker of NATS JetStream and
two recorders are sockagent as users run it. Any of them, and the hosts' feeds, are killed with
SIGKILL and started again after 0.1 to 2 seconds. With --real the hosts are namespaces with real
agents and sockets. The exit status is 1 if a change is doubled, or lost without a ``lost`` record,
or if a state differs five seconds after the last change.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from .check import table
from .crowd import lines, measure
from .kills import LONG, QUIET_SECONDS, SHORT, Fleet, Scenario, run
from .real import REAL_LONG, REAL_SHORT, RealFleet

_MAX_SEED = 2**32
CROWD_SECONDS = 60.0


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench fleet", description=__doc__)
    add = parser.add_argument
    add(
        "--short",
        action="store_true",
        help=f"{SHORT.seconds:g} seconds and {SHORT.wanted.kills} kills",
    )
    add("--seconds", type=float, metavar="N", help=f"({LONG.seconds:g})")
    add("--kills", type=int, metavar="N", help=f"({LONG.wanted.kills})")
    add("--older", type=int, default=0, metavar="N", help="replace the broker's store by an older "
        "copy N times; the broker is not killed otherwise")  # fmt: skip
    add("--outage", type=float, default=0.0, metavar="SECONDS", help="stop the broker once for so "
        "long; it is not killed otherwise")  # fmt: skip
    add("--real", action="store_true", help="real agents and sockets, in namespaces; needs root")
    add("--hosts", type=int, metavar="N", help="measure a fleet of N simulated hosts instead")
    add("--rate", type=float, default=10.0, metavar="N", help="changes a second of each of them "
        "(10)")  # fmt: skip
    add("--seed", type=int, metavar="N", help="repeat the kills of a run")
    add("--nats-server", default="nats-server", metavar="FILE", help="the broker")
    add("--keep", type=Path, metavar="DIRECTORY", help="keep all files and logs there")
    options = parser.parse_args()
    if not shutil.which(options.nats_server):
        parser.error(f"{options.nats_server} is not installed")
    if options.real and os.geteuid():
        parser.error("--real needs root")
    return options


def kill(options: argparse.Namespace, directory: Path) -> int:
    """Run the kill test and print the outcome; return the exit status."""
    long, short = (REAL_LONG, REAL_SHORT) if options.real else (LONG, SHORT)
    scenario = short if options.short else long
    wanted = scenario.wanted._replace(older=options.older, outage=options.outage)
    if options.kills is not None:
        wanted = wanted._replace(kills=options.kills)
    scenario = Scenario(options.seconds or scenario.seconds, wanted, scenario.size)
    seed = random.SystemRandom().randrange(_MAX_SEED) if options.seed is None else options.seed
    kind = RealFleet if options.real else Fleet
    found = run(directory, seed, scenario, options.nats_server, kind)
    print("\n".join(table(found.outcomes)))
    truths = {host: one.truth for _, host, one in found.outcomes}
    caught_up = "never" if found.quiet is None else f"after {found.quiet:.1f} s"
    print(
        f"\n{sum(truths.values()):,} changes; the consumers had the last one {caught_up} of quiet, "
        f"at most {QUIET_SECONDS:g} s"
    )
    for consumer, host, one in found.outcomes:
        for example in one.examples:
            print(f"  {consumer}, {host}: {example}")
    for problem in found.problems:
        print(f"  {problem}")
    passes = found.is_exact and found.is_in_time
    print("pass" if passes else "miss")
    return 0 if passes else 1


def crowd(options: argparse.Namespace, directory: Path) -> int:
    """Measure many hosts and print the outcome; return the exit status."""
    seconds = options.seconds or CROWD_SECONDS
    result = measure(directory, options.nats_server, options.hosts, seconds, options.rate)
    print("\n".join(lines(result)))
    return 1 if result.seen.gaps or result.seen.losses else 0


def main() -> int:
    """Run the benchmark; return the exit status."""
    options = arguments()
    act = crowd if options.hosts else kill
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that its processes end as well.
    if options.keep:
        options.keep.mkdir(parents=True)
        return act(options, options.keep)
    with tempfile.TemporaryDirectory(prefix="fleet-") as directory:
        return act(options, Path(directory))


if __name__ == "__main__":
    sys.exit(main())
