"""Measures sockagent beside ss, netstat, lsof and psutil, under a load that it builds.

Each is timed as a whole process, start-up included, in turn: what disturbs the machine for a while
disturbs all of them. What is compared is therefore the ratio inside each round.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from . import report
from .commands import OURS, Command, Sample, commands, measure
from .follow import follow
from .load import Shape, add_shape, running


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rounds", type=int, default=7, metavar="N", help="timed rounds (default: 7)")
    add("--polls", type=int, default=20, metavar="N", help="polls to follow for; 0: none (20)")
    add("--interval", type=float, default=1.0, metavar="SECONDS", help="between polls (1.0)")
    add("--pipe", action="store_true", help="drain all output through pipes, not to /dev/null")
    add("--check", action="store_true", help="exit 1 when a bar is missed")
    add("--json", type=Path, metavar="FILE", help="write everything measured there")
    add(
        "--document",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="put the table between its <!-- bench --> marks; may repeat",
    )
    add("--no-load", action="store_true", help="build no load: measure what there is")
    add_shape(parser)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("argument --rounds: must be at least 1")
    return options


def compare(chosen: list[Command], rounds: int, *, pipe: bool) -> dict[str, list[Sample]]:
    """All commands in turn, ``rounds`` times, behind one round that warms up."""
    samples: dict[str, list[Sample]] = {command.name: [] for command in chosen}
    for number in range(rounds + 1):
        for command in chosen:
            sample = measure(command, pipe=pipe)
            if sample is None:
                raise SystemExit(f"{command.name} failed")
            if number:
                samples[command.name].append(sample)
        log(f"round {number} of {rounds}" if number else "warm")
    return samples


def log(text: str) -> None:
    """Progress, for who watches."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Build the load, measure, and tell; the exit status."""
    options = arguments()
    shape = Shape(**{name: getattr(options, name) for name in Shape._fields})
    with nullcontext() if options.no_load else running(shape):
        chosen, missing = commands()
        samples = compare(chosen, options.rounds, pipe=options.pipe)
        followed = follow(options.polls, options.interval) if options.polls else None
    table = report.rows(chosen, samples)
    text = report.markdown(table, followed)
    if missing:
        text += f"\n\nNot compared, for they are not installed: {', '.join(missing)}."
    print(text)
    for path in options.document:
        report.write_between(path, text)
    if options.json:
        load = None if options.no_load else shape._asdict()
        whole = report.as_json(table, samples, followed, missing, load)
        options.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    if options.polls and followed is None:
        print(f"{OURS} --follow ended by itself", file=sys.stderr)
        return 1
    missed = any(row.passes is False for row in table)
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
