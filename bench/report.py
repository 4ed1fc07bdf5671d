"""Results of ``compare`` as a Markdown table and as JSON."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from .agents import Memory
from .commands import OURS, Command, Sample

_BEGIN, _END = "<!-- bench -->", "<!-- /bench -->"


class Followed(NamedTuple):
    """``sockagent --follow`` while nothing changes; ``cpu`` is in seconds per poll."""

    first: Memory
    later: Memory
    polls: int
    interval: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of one command, and the medians of the rounds' ratios of sockagent to it."""

    name: str
    wall_ms: float
    cpu_ms: float
    peak_mib: float
    wall_ratio: float | None = None
    cpu_ratio: float | None = None
    limit: float | None = None

    @property
    def passes(self) -> bool | None:
        """Whether the ratio is within the limit; None without a limit."""
        if self.limit is None or self.wall_ratio is None:
            return None
        return self.wall_ratio <= self.limit


def rows(commands: Sequence[Command], samples: Mapping[str, Sequence[Sample]]) -> list[Row]:
    """Return the rows of the table, in the order of the commands."""
    ours = samples[OURS]
    table = []
    for command in commands:
        theirs = samples[command.name]
        wall, cpu = None, None
        if command.name != OURS:
            pairs = list(zip(ours, theirs, strict=True))
            wall = median(us.wall / them.wall for us, them in pairs)
            cpu = median(us.cpu / them.cpu for us, them in pairs)
        table.append(
            Row(
                command.name,
                median(sample.wall for sample in theirs) * 1000,
                median(sample.cpu for sample in theirs) * 1000,
                median(sample.peak for sample in theirs) / 1024,
                wall,
                cpu,
                command.limit,
            )
        )
    return table


def markdown(table: Sequence[Row], followed: Followed | None) -> str:
    """Return the table, and a sentence on following."""
    lines = [
        "| command | wall, ms | CPU, ms | peak RSS, MiB | wall ratio | CPU ratio | at most |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in table:
        verdict = {None: "", True: "pass", False: "**miss**"}[row.passes]
        limit = "" if row.limit is None else f"{row.limit:.1f}: {verdict}"
        wall = "" if row.wall_ratio is None else f"{row.wall_ratio:.2f}"
        cpu = "" if row.cpu_ratio is None else f"{row.cpu_ratio:.2f}"
        lines.append(
            f"| `{row.name}` | {row.wall_ms:.0f} | {row.cpu_ms:.0f} | {row.peak_mib:.0f} "
            f"| {wall} | {cpu} | {limit} |"
        )
    if followed:
        lines += ["", sentence(table, followed)]
    return "\n".join(lines)


def ratio(ours: Sequence[float], others: Sequence[float]) -> str:
    """Return the median of the rounds' ratios, and their quartiles."""
    ratios = [one / other for one, other in zip(ours, others, strict=True)]
    low, middle, high = (
        quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def pair_table(samples: Mapping[str, Sequence[Sample]]) -> str:
    """Return a table of snapshots of two agents, and of the ratio of the first to the second."""
    lines = ["| snapshot of | wall, ms | CPU, ms | peak RSS, MiB |", "|---|---:|---:|---:|"]
    columns = {name: list(zip(*taken, strict=True)) for name, taken in samples.items()}
    for name, (wall, cpu, peak) in columns.items():
        lines.append(
            f"| {name} | {median(wall) * 1000:.0f} | {median(cpu) * 1000:.0f} "
            f"| {median(peak) / 1024:.1f} |"
        )
    ours, others = columns.values()
    cells = " | ".join(ratio(*pair) for pair in zip(ours, others, strict=True))
    return "\n".join([*lines, f"| {' / '.join(samples)} (quartiles) | {cells} |"])


def log(text: str) -> None:
    """Print progress to a terminal."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def sentence(table: Sequence[Row], followed: Followed) -> str:
    """Return a sentence on the cost of following while nothing changes."""
    first, later = followed.first, followed.later
    text = (
        f"`sockagent --follow` while nothing changes: {first.rss / 1024:.0f} MiB resident "
        f"({first.pss / 1024:.0f} MiB proportional) after the first snapshot, "
        f"{later.rss / 1024:.0f} MiB ({later.pss / 1024:.0f} MiB) {followed.polls} polls later; "
        f"{followed.cpu * 1000:.0f} ms CPU a poll"
    )
    peer = next((row for row in table if row.name == "ss -anp"), None)
    if peer:
        text += f", {followed.cpu * 1000 / peer.cpu_ms:.2f} of one `ss -anp`"
    return text + "."


def machine() -> dict[str, object]:
    """Return the machine that this was measured on."""
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "user": "root" if os.geteuid() == 0 else "other",
    }


def as_json(
    table: Sequence[Row],
    samples: Mapping[str, Sequence[Sample]],
    followed: Followed | None,
    missing: Sequence[str],
    load: object,
) -> dict[str, Any]:
    """Return all measurements."""
    return {
        "machine": machine(),
        "load": load,
        "commands": [{**asdict(row), "passes": row.passes} for row in table],
        "samples": {
            name: [sample._asdict() for sample in taken] for name, taken in samples.items()
        },
        "follow": followed
        and {
            **followed._asdict(),
            "first": followed.first._asdict(),
            "later": followed.later._asdict(),
        },
        "missing": list(missing),
    }


def write_between(path: Path, text: str) -> None:
    """Replace the text between the marks in a document."""
    document = path.read_text(encoding="utf-8")
    before, begin, rest = document.partition(_BEGIN)
    _old, end, after = rest.partition(_END)
    if not (begin and end):
        raise SystemExit(f"{path} has no marks {_BEGIN} and {_END}")
    path.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", encoding="utf-8")
