"""Measure the CPU time of a poll of ``sockagent --follow``, against one ``ss -anp``.

Each round follows for some polls and then runs ``ss`` once, so that a disturbance of the machine
affects both; while ``ss`` runs, nothing is counted for the agent. ``ss`` is measured as a whole
process, the agent while it runs. With --agent PATH this checkout and the other one follow side by
side instead, and both are measured over the same polls.
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
from .agents import Agent, add_agent, agents_of, cpu_per_poll, following, installed
from .commands import Command, measure
from .growth import growth, table_of_growth
from .growth import picture as draw
from .load import add_shape, running, shape_of
from .report import log, ratio
from .single import single
from .soak import soak

INTERVAL = 1.0  # Seconds.
# In the first polls after the start every process counts as new.
WARM_UP_SECONDS = 10 * INTERVAL
_SS = Command("ss -anp", ("ss", "-anp"))
# Limits of the ratio to ss, by scenario and source.
LIMITS = {
    ("quiet", "netlink"): 1 / 15,
    ("quiet", "procfs"): 1 / 8,
    ("busy", "netlink"): 1 / 6,
    ("busy", "procfs"): 1 / 4,
}
SCENARIOS = {"quiet": "quiet", "busy": "200 opens and closes a second"}


class PollCost(NamedTuple):
    """CPU milliseconds of a poll and of one ``ss``, their ratio and its limit."""

    name: str
    source: str
    agent_ms: float
    ss_ms: float
    ratio: float
    limit: float
    rss_mib: float


class PairCost(NamedTuple):
    """CPU milliseconds of a poll of two agents, in each round, and their resident MiB."""

    name: str
    source: str
    this_ms: list[float]
    other_ms: list[float]
    this_mib: float
    other_mib: float


def against_ss(scenario: str, source: str, rounds: int, polls: int) -> PollCost:
    """Follow with this source, and run ``ss``, in turn."""
    ours, theirs, ratios = [], [], []
    with following(installed(), "--source", source, "--interval", str(INTERVAL)) as agent:
        time.sleep(WARM_UP_SECONDS)
        for number in range(rounds):
            mine = agent.cpu_per_poll(polls, INTERVAL)
            peer = measure(_SS)
            if peer is None:
                raise SystemExit("ss failed")
            ours.append(mine)
            theirs.append(peer.cpu)
            ratios.append(mine / peer.cpu)
            time.sleep(3 * INTERVAL)  # By then the sockets of ss have been reported.
            log(f"{scenario}, {source}: round {number + 1} of {rounds}")
        rss = agent.rss()
    return PollCost(
        SCENARIOS[scenario], source, median(ours) * 1000, median(theirs) * 1000, median(ratios),
        LIMITS[scenario, source], rss / 1024,
    )  # fmt: skip


def side_by_side(
    scenario: str, source: str, agents: list[Agent], rounds: int, polls: int
) -> PairCost:
    """Follow with both agents at once."""
    costs = []
    with ExitStack() as stack:
        both = [
            stack.enter_context(following(agent, "--source", source, "--interval", str(INTERVAL)))
            for agent in agents
        ]
        time.sleep(WARM_UP_SECONDS)
        for number in range(rounds):
            costs.append([cpu * 1000 for cpu in cpu_per_poll(both, polls, INTERVAL)])
            log(f"{scenario}, {source}: round {number + 1} of {rounds}")
        this_rss, other_rss = (agent.rss() / 1024 for agent in both)
    this, other = map(list, zip(*costs, strict=True))
    return PairCost(SCENARIOS[scenario], source, this, other, this_rss, other_rss)


def table(costs: list[PollCost]) -> str:
    """Return the comparison with ss as Markdown."""
    lines = [
        "| load | tables | CPU of a poll, ms | of one `ss -anp`, ms | ratio | at most | RSS, MiB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for cost in costs:
        verdict = "pass" if cost.ratio <= cost.limit else "**miss**"
        lines.append(
            f"| {cost.name} | {cost.source} | {cost.agent_ms:.1f} | {cost.ss_ms:.0f} "
            f"| 1/{1 / cost.ratio:.1f} | 1/{1 / cost.limit:.0f}: {verdict} | {cost.rss_mib:.0f} |"
        )
    return "\n".join(lines)


def pair_table(costs: list[PairCost]) -> str:
    """Return the comparison of two agents as Markdown."""
    heading = (
        "| load | tables | CPU of a poll, this, ms | other, ms | this / other (quartiles) "
        "| RSS, this, MiB | other, MiB |"
    )
    lines = [heading, "|---|---|---:|---:|---:|---:|---:|"]
    lines += (
        f"| {cost.name} | {cost.source} | {median(cost.this_ms):.1f} | {median(cost.other_ms):.1f} "
        f"| {ratio(cost.this_ms, cost.other_ms)} | {cost.this_mib:.0f} | {cost.other_mib:.0f} |"
        for cost in costs
    )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench polls", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, metavar="N", help="rounds of each scenario (5)")
    add("--polls", type=int, default=15, metavar="N", help="polls in a round (15)")
    add("--only", metavar="NAMES", help="some of: quiet, busy, single, growth, soak")
    add("--source", choices=("netlink", "procfs"), help="only this source of tables")
    add("--soak", type=float, default=0.0, metavar="MINUTES", help="add a soak test under churn")
    add("--picture", type=Path, metavar="FILE", help="write the growth as SVG to FILE")
    add("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    add("--no-load", action="store_true", help="measure the machine as it is, without a load")
    add_agent(parser)
    add_shape(parser)
    options = parser.parse_args()
    names = {"quiet", "busy"} if options.agent else {"quiet", "busy", "single", "growth", "soak"}
    options.only = set(options.only.split(",")) if options.only else names
    if options.only - names:
        parser.error(f"argument --only: expected some of {', '.join(sorted(names))}")
    return options


def scenarios(options: argparse.Namespace) -> list[PollCost | PairCost]:
    """Measure the scenarios quiet and busy."""
    costs: list[PollCost | PairCost] = []
    agents = agents_of(options.agent)
    with ExitStack() as stack:
        stack.enter_context(nullcontext() if options.no_load else running(shape_of(options)))
        for scenario, source in LIMITS:
            if scenario not in options.only or options.source not in (None, source):
                continue
            with churn.running(20, 200) if scenario == "busy" else nullcontext():
                costs.append(
                    side_by_side(scenario, source, agents, options.rounds, options.polls)
                    if options.agent
                    else against_ss(scenario, source, options.rounds, options.polls)
                )
    return costs


def main() -> int:
    """Measure what the options name and print it; return the exit status."""
    options = parse()
    results: dict[str, object] = {}
    if options.only & {"quiet", "busy"}:
        costs = scenarios(options)
        pairs = [cost for cost in costs if isinstance(cost, PairCost)]
        alone = [cost for cost in costs if isinstance(cost, PollCost)]
        print(pair_table(pairs) if options.agent else table(alone), flush=True)
        results["polls"] = [cost._asdict() for cost in costs]
    if "single" in options.only:
        one = single()
        print(f"\n{one.sentence()}", flush=True)
        results["single"] = one._asdict()
    if "growth" in options.only:
        points = growth()
        print(f"\n{table_of_growth(points)}", flush=True)
        results["growth"] = [point._asdict() for point in points]
        if options.picture:
            options.picture.write_text(draw(points), encoding="utf-8")
    if "soak" in options.only and options.soak:
        soaked = soak(options.soak)
        print(f"\n{soaked.sentence()}", flush=True)
        results["soak"] = soaked._asdict()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
