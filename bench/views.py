"""Compare the views for people with NDJSON, under a load and without one.

Each is a whole command, start-up included, whose output is drained through a pipe. The commands
take turns; ratios and differences are those within each round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from statistics import median
from typing import NamedTuple

from .agents import installed
from .commands import Command, Sample
from .compare import take_turns
from .load import add_shape, running, shape_of

ROUNDS = 15
_NDJSON = "NDJSON"


class Limit(NamedTuple):
    """How much longer a view may take than NDJSON: under the load ``ratio`` times; ``added_ms``
    milliseconds without the load."""

    ratio: float
    added_ms: float


VIEWS = {
    "overview": (("-o", "summary"), Limit(1.2, 15)),
    "table of all sockets": (("-o", "table", "-a"), Limit(1.75, 15)),
}


def table(samples: Mapping[str, Sequence[Sample]], *, is_loaded: bool) -> str:
    """Return the medians of each output, and of the rounds' ratios and differences, as Markdown."""
    lines = [
        "| output | wall, ms | to NDJSON | more, ms | CPU, ms | to NDJSON | limit | result |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, runs in samples.items():
        pairs = list(zip(runs, samples[_NDJSON], strict=True))
        ratio = median(one.wall / other.wall for one, other in pairs)
        added = median(one.wall - other.wall for one, other in pairs) * 1000
        of_cpu = median(one.cpu / other.cpu for one, other in pairs)
        limit, result = "", ""
        if name in VIEWS:
            most = VIEWS[name][1]
            passes = ratio <= most.ratio if is_loaded else added <= most.added_ms
            limit = f"{most.ratio:g} times" if is_loaded else f"{most.added_ms:g} ms more"
            result = "pass" if passes else "miss"
        lines.append(
            f"| {name} | {median(one.wall for one in runs) * 1000:.0f} | {ratio:.2f} | {added:.1f} "
            f"| {median(one.cpu for one in runs) * 1000:.0f} | {of_cpu:.2f} | {limit} | {result} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure and print a table for each load; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench views", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="timed rounds (15)")
    add_shape(parser)
    options = parser.parse_args()
    ours = installed().argv
    chosen = [Command(_NDJSON, (*ours, "-o", "ndjson"))]
    chosen += [Command(name, (*ours, *words)) for name, (words, _limit) in VIEWS.items()]
    for shape in (shape_of(options), None):
        with running(shape) if shape is not None else nullcontext():
            samples = take_turns(chosen, options.rounds, pipe=True)
        loaded = f"{shape.tcp} TCP and {shape.unix} unix sockets" if shape else "No load"
        print(f"\n{loaded}:\n\n{table(samples, is_loaded=shape is not None)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
