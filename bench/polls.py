"""What a poll of ``sockagent --follow`` costs, beside one ``ss -anp``: ``python -m bench.polls``.

Processor time decides. Each round follows for some polls and then runs ``ss`` once, so that what
disturbs the machine disturbs both; while ``ss`` runs, nothing is counted for the agent. The peer is
measured as a whole process, the agent while it runs: that is what each costs who uses it so.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from statistics import median
from typing import NamedTuple

from . import churn
from .agent import following
from .commands import Command, measure
from .growth import growth, table_of_growth
from .growth import picture as draw
from .load import Shape, add_shape, running
from .single import single
from .soak import soak

INTERVAL = 1.0  # Seconds.
_SS = Command("ss -anp", ("ss", "-anp"))


class PollCost(NamedTuple):
    """A scenario measured: CPU milliseconds of a poll and of one ``ss``, and the bar."""

    name: str
    source: str
    agent_ms: float
    ss_ms: float
    ratio: float
    bar: float
    rss_mib: float


def compare(name: str, source: str, bar: float, rounds: int, polls: int) -> PollCost:
    """Follow with this source, and run ``ss``, in turn."""
    ours, theirs, ratios = [], [], []
    with following("--source", source, "--interval", str(INTERVAL)) as agent:
        time.sleep(10 * INTERVAL)  # Processes are new for some polls.
        for _ in range(rounds):
            mine = agent.cpu_per_poll(polls, INTERVAL)
            peer = measure(_SS)
            if peer is None:
                raise SystemExit("ss failed")
            ours.append(mine)
            theirs.append(peer.cpu)
            ratios.append(mine / peer.cpu)
            time.sleep(3 * INTERVAL)  # What ss opened and closed has been told.
        rss = agent.rss()
    return PollCost(
        name, source, median(ours) * 1000, median(theirs) * 1000, median(ratios), bar, rss / 1024
    )


def table(polls: list[PollCost]) -> str:
    """The comparison as Markdown."""
    lines = [
        "| load | tables | CPU of a poll, ms | of one `ss -anp`, ms | ratio | at most | RSS, MiB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for poll in polls:
        verdict = "pass" if poll.ratio <= poll.bar else "**miss**"
        lines.append(
            f"| {poll.name} | {poll.source} | {poll.agent_ms:.1f} | {poll.ss_ms:.0f} "
            f"| 1/{1 / poll.ratio:.1f} | 1/{1 / poll.bar:.0f}: {verdict} | {poll.rss_mib:.0f} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.polls", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, metavar="N", help="rounds of each scenario (5)")
    add("--polls", type=int, default=15, metavar="N", help="polls in a round (15)")
    add("--only", metavar="NAMES", help="of: quiet, busy, single, growth, soak")
    add("--soak", type=float, default=0.0, metavar="MINUTES", help="a soak under churn too")
    add("--picture", type=Path, metavar="FILE", help="write the growth as SVG there")
    add("--json", type=Path, metavar="FILE", help="write everything measured there")
    add("--no-load", action="store_true", help="build no load: measure what there is")
    add_shape(parser)
    return parser.parse_args()


def main() -> int:
    """Measure what was asked for, and tell."""
    options = arguments()
    wanted = set((options.only or "quiet,busy,single,growth,soak").split(","))
    shape = Shape(**{name: getattr(options, name) for name in Shape._fields})
    results: dict[str, object] = {}
    if wanted & {"quiet", "busy"}:
        polls: list[PollCost] = []
        with nullcontext() if options.no_load else running(shape):
            if "quiet" in wanted:
                for source, bar in (("netlink", 1 / 15), ("procfs", 1 / 8)):
                    polls.append(compare("quiet", source, bar, options.rounds, options.polls))
            if "busy" in wanted:
                with ExitStack() as stack:
                    stack.enter_context(churn.running(20, 200))
                    for source, bar in (("netlink", 1 / 6), ("procfs", 1 / 4)):
                        name = "200 opens and closes a second"
                        polls.append(compare(name, source, bar, options.rounds, options.polls))
        print(table(polls), flush=True)
        results["polls"] = [poll._asdict() for poll in polls]
    if "single" in wanted:
        one = single()
        print(f"\n{one.sentence()}", flush=True)
        results["single"] = one._asdict()
    if "growth" in wanted:
        points = growth()
        print(f"\n{table_of_growth(points)}", flush=True)
        results["growth"] = [point._asdict() for point in points]
        if options.picture:
            options.picture.write_text(draw(points), encoding="utf-8")
    if "soak" in wanted and options.soak:
        soaked = soak(options.soak)
        print(f"\n{soaked.sentence()}", flush=True)
        results["soak"] = soaked._asdict()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
