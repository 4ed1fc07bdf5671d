"""Measure optimisations against their alternatives, interleaved.

Comments in agent/ cite these benchmarks by name. A ratio below 1 is in favour of the way chosen.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import nullcontext
from pathlib import Path

from ..load import Shape, running
from ..report import log
from . import kernel, snapshots, stream, terminal, top, values
from .timing import Benchmark, Cost, measure

BENCHMARKS: dict[str, Benchmark] = {
    one.__name__: one
    for one in (
        *values.BENCHMARKS,
        *kernel.BENCHMARKS,
        *stream.BENCHMARKS,
        *terminal.BENCHMARKS,
        *top.BENCHMARKS,
        *snapshots.BENCHMARKS,
    )
}
WHOLE = frozenset(one.__name__ for one in snapshots.BENCHMARKS)


def table(costs: dict[str, Cost]) -> str:
    """Return the costs as Markdown."""
    lines = [
        "| benchmark | chosen; instead | chosen, µs | instead, µs | ratio (quartiles) |",
        "|---|---|---:|---:|---:|",
    ]
    for name, cost in costs.items():
        title = (BENCHMARKS[name].__doc__ or "").splitlines()[0].rstrip(".")
        low, middle, high = cost.ratios
        lines.append(
            f"| {name} | {title} | {_number(cost.chosen)} | {_number(cost.instead)} "
            f"| {middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return "\n".join(lines)


def _number(microseconds: float) -> str:
    return f"{microseconds:,.0f}" if microseconds >= 1000 else f"{microseconds:.3g}"


def main() -> None:
    """Measure the benchmarks that the options name, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench micro", description=__doc__)
    parser.add_argument("--only", metavar="NAMES", help="of these, separated by commas")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="of each (15)")
    parser.add_argument("--no-load", action="store_true", help="no load for whole snapshots")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(BENCHMARKS)
    if unknown := set(names) - BENCHMARKS.keys():
        parser.error(f"argument --only: no benchmark named {', '.join(sorted(unknown))}")
    if options.list:
        print("\n".join(names))
        return
    costs = {}
    for name in names:
        is_whole = name in WHOLE
        with running(Shape()) if is_whole and not options.no_load else nullcontext():
            clock = time.perf_counter if is_whole else time.process_time
            costs[name] = measure(BENCHMARKS[name](), options.rounds, clock)
        log(f"{name}: {costs[name].ratios[1]:.2f}")
    print(table(costs))
    if options.json:
        results = {name: cost._asdict() for name, cost in costs.items()}
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
