"""Measure what a relay costs for each record, and how long records take through it.

Some feeds of synthetic sockets change 1,000 of them a second each. A relay follows all of them and
serves one subscriber; another subscriber is connected to the first feed itself, in the same run.
With --agent PATH the relay of another checkout follows feeds in turn with this one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .agents import Agent, RunningAgent, add_agent, agents_of
from .feed import free_port, serving
from .report import log, ratio

# By then the first bursts of changes, in which modules and caches are filled, are over.
_SETTLE_SECONDS = 3.0
_PAIR_ROUNDS = 5
_DIRECT = "feed, without a relay"
# The share of the expected records that must come; a burst more or less is no loss.
_MIN_SHARE = 0.9


class Cost(NamedTuple):
    """What was measured of one subscriber. ``cpu_us`` is CPU time of the relay for each record that
    it passed on, ``core`` in seconds per second; None without a relay."""

    server: str
    records: float  # Per second.
    cpu_us: float | None
    core: float | None
    p50: float  # Seconds from the time of a record until the subscriber has it.
    p99: float
    lost: int


@contextmanager
def feed(number: int, rows: int, rate: int) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a feed of a host; yield its port and its process."""
    port = free_port()
    words = (str(port), str(rows), str(rate), f"host{number}")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        (sys.executable, "-m", "bench.page_feed", *words),
        stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            _await_ready(process, "a feed")
            yield port, process
        finally:
            process.kill()


@contextmanager
def subscriber(port: int, hosts: int) -> Iterator[subprocess.Popen[str]]:
    """Run a subscriber that has the snapshots of this many hosts."""
    url = f"ws://127.0.0.1:{port}/events"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        (sys.executable, "-m", "bench.delays", url, str(hosts)), stdin=pipe, stdout=pipe, text=True
    ) as process:
        try:
            _await_ready(process, "a subscriber")
            yield process
        finally:
            process.kill()


def _await_ready(process: subprocess.Popen[str], name: str) -> None:
    assert process.stdout
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{name} could not be started")


def _send_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def _result(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    found: dict[str, float] = json.loads(process.stdout.readline())
    return found


def measure(agent: Agent, options: argparse.Namespace) -> tuple[Cost, Cost]:
    """Return the costs of a feed without a relay, and those of the relay."""
    with ExitStack() as stack:
        ports = []
        feeds = []
        for number in range(options.agents):
            port, process = stack.enter_context(feed(number, options.rows, options.rate))
            ports.append(port)
            feeds.append(process)
        remotes = tuple(word for port in ports for word in ("--connect", f"ws://127.0.0.1:{port}"))
        relay_port = free_port()
        following = agent._replace(argv=agent.command(*remotes))
        relay: RunningAgent = stack.enter_context(serving(following, relay_port))
        relayed = stack.enter_context(subscriber(relay_port, options.agents))
        direct = stack.enter_context(subscriber(ports[0], 1))
        for number, process in enumerate(feeds):
            if number:  # Agents do not poll at the same moment.
                time.sleep(1 / options.agents)
            _send_line(process)
        time.sleep(_SETTLE_SECONDS)
        for process in (relayed, direct):
            _send_line(process)
        begun, spent = time.monotonic(), relay.cpu()
        time.sleep(options.seconds)
        seconds, spent = time.monotonic() - begun, relay.cpu() - spent
        through, without = _result(relayed), _result(direct)
    return (
        _cost(_DIRECT, without, seconds, None),
        _cost(f"relay of {options.agents}: {agent.name}", through, seconds, spent),
    )


def _cost(server: str, found: dict[str, float], seconds: float, spent: float | None) -> Cost:
    records = found["records"]
    cpu_us, core = (None, None) if spent is None else (spent / records * 1e6, spent / seconds)
    p50, p99 = found["p50"], found["p99"]
    return Cost(server, records / seconds, cpu_us, core, p50, p99, int(found["lost"]))


def table(costs: Sequence[Cost]) -> str:
    """Return the medians of the costs by server, as Markdown."""
    heading = (
        "| server | records passed on a second | CPU of the relay a record, µs | of one core "
        "| delay p50, ms | p99, ms |"
    )
    lines = [heading, "|---|---:|---:|---:|---:|---:|"]
    for server in dict.fromkeys(one.server for one in costs):
        some = [one for one in costs if one.server == server]
        cpu = [one.cpu_us for one in some if one.cpu_us is not None]
        core = [one.core for one in some if one.core is not None]
        lines.append(
            f"| {server} | {median(one.records for one in some):,.0f} "
            f"| {f'{median(cpu):.1f} | {median(core):.2f}' if cpu else ' | '} "
            f"| {median(one.p50 for one in some) * 1000:.0f} "
            f"| {median(one.p99 for one in some) * 1000:.0f} |"
        )
    return "\n".join(lines)


def _cpu(costs: Sequence[Cost], name: str) -> list[float]:
    """Return the CPU time of a relay for each record, in each round."""
    return [one.cpu_us for one in costs if one.cpu_us and one.server.endswith(f": {name}")]


def misses(costs: Sequence[Cost], options: argparse.Namespace) -> list[str]:
    """Return what was not passed on."""
    found = []
    for one in costs:
        expected = options.rate * (1 if one.server == _DIRECT else options.agents)
        if one.lost:
            found.append(f"{one.server}: {one.lost} lost records")
        if one.records < expected * _MIN_SHARE:
            found.append(f"{one.server}: {one.records:,.0f} records a second, not {expected:,}")
    return found


def main() -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench relay", description=__doc__)
    add = parser.add_argument
    add("--agents", type=int, default=3, metavar="N", help="feeds that the relay follows (3)")
    add("--rate", type=int, default=1000, metavar="N", help="changes of each a second (1000)")
    add("--rows", type=int, default=5000, metavar="N", help="sockets of each (5000)")
    add("--seconds", type=int, default=20, metavar="N", help="seconds of a round (20)")
    add("--rounds", type=int, metavar="N", help=f"rounds (3; with --agent: {_PAIR_ROUNDS})")
    add("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    add_agent(parser)
    options = parser.parse_args()
    agents = agents_of(options.agent)
    costs: list[Cost] = []
    for number in range(options.rounds or (_PAIR_ROUNDS if options.agent else 3)):
        for agent in reversed(agents) if number % 2 else agents:
            costs += measure(agent, options)
            log(str(costs[-2:]))
    print(table(costs))
    if options.agent:
        ratios = ratio(_cpu(costs, "this"), _cpu(costs, "other"))
        print(f"\nthis / other (quartiles): CPU of the relay a record {ratios}")
    if options.json:
        options.json.write_text(json.dumps([one._asdict() for one in costs]))
    found = misses(costs, options)
    for miss in found:
        print(f"missed: {miss}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
