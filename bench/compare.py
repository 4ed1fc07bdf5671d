"""Compare a snapshot of sockagent with ss, netstat, lsof and psutil under a load built for it.

Each command is timed as a whole process, start-up included. The commands take turns, so that a
disturbance of the machine affects all of them, and the ratios are those within each round. With
--agent PATH only this checkout and the other one are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from . import report
from .agents import add_agent, agents_of, following, installed
from .commands import Command, Sample, commands, measure
from .load import add_shape, running, shape_of
from .report import Followed, log

PAIR_ROUNDS, ROUNDS = 21, 7


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench compare", description=__doc__)
    add = parser.add_argument
    add(
        "--rounds",
        type=int,
        metavar="N",
        help=f"timed rounds (default: {ROUNDS}; with --agent: {PAIR_ROUNDS})",
    )
    add("--polls", type=int, default=20, metavar="N", help="polls to follow for; 0: none (20)")
    add("--interval", type=float, default=1.0, metavar="SECONDS", help="between polls (1.0)")
    add("--pipe", action="store_true", help="drain all output through pipes, not to /dev/null")
    add("--check", action="store_true", help="exit 1 when a limit is exceeded")
    add("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    add(
        "--document",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="replace the table between the <!-- bench --> marks of FILE; may be repeated",
    )
    add("--no-load", action="store_true", help="measure the machine as it is, without a load")
    add_agent(parser)
    add_shape(parser)
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = PAIR_ROUNDS if options.agent else ROUNDS
    if options.rounds < 1:
        parser.error("argument --rounds: must be at least 1")
    return options


def take_turns(chosen: list[Command], rounds: int, *, pipe: bool) -> dict[str, list[Sample]]:
    """Run all commands in turn, after a round that is not counted. Each round reverses the order of
    the previous one, so that none profits from its place."""
    samples: dict[str, list[Sample]] = {command.name: [] for command in chosen}
    for number in range(rounds + 1):
        for command in chosen if number % 2 else reversed(chosen):
            sample = measure(command, pipe=pipe)
            if sample is None:
                raise SystemExit(f"{command.name} failed")
            if number:
                samples[command.name].append(sample)
        log(f"round {number} of {rounds}" if number else "warm")
    return samples


def follow(polls: int, interval: float) -> Followed:
    """Measure ``sockagent --follow`` for this many polls after its first snapshot."""
    with following(installed(), "--interval", str(interval)) as agent:
        first = agent.memory()
        cpu = agent.cpu_per_poll(polls, interval)
        return Followed(first, agent.memory(), polls, interval, cpu)


def main() -> int:
    """Build the load, measure and print a table; return the exit status."""
    options = parse()
    shape = shape_of(options)
    with nullcontext() if options.no_load else running(shape):
        if options.agent:
            chosen = [Command(agent.name, agent.command()) for agent in agents_of(options.agent)]
            samples = take_turns(chosen, options.rounds, pipe=options.pipe)
            print(report.pair_table(samples))
            return 0
        chosen, missing = commands()
        samples = take_turns(chosen, options.rounds, pipe=options.pipe)
        followed = follow(options.polls, options.interval) if options.polls else None
    table = report.rows(chosen, samples)
    text = report.markdown(table, followed)
    if missing:
        text += f"\n\nNot installed, and therefore not compared: {', '.join(missing)}."
    print(text)
    for path in options.document:
        report.write_between(path, text)
    if options.json:
        load = None if options.no_load else shape._asdict()
        whole = report.as_json(table, samples, followed, missing, load)
        options.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return 1 if options.check and any(row.passes is False for row in table) else 0


if __name__ == "__main__":
    sys.exit(main())
