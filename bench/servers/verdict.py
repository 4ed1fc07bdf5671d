"""Result of a recorded run, as rows of Markdown tables and as JSON."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

from .recorded import Run
from .truth import (
    Score,
    belongs,
    give_notices,
    is_of,
    match,
    reused,
    score,
    unlogged,
)

_REPORTED = (
    "| workload | s | side | ends | open and close | never | once | attributed | shared "
    "| duplicate | right pid | null pid | wrong pid | ghosts | short-lived though long |"
)
_TIMED = (
    "| workload | s | connections | load, s | close delay p50, s | p99 | max | duration off "
    "| polls | late | poll p99, ms | CPU | opens | closes | notices | their lag p99, s | unlogged "
    "| unmatched | violations |"
)


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one workload at one interval."""

    workload: str
    interval: float
    connections: int
    noticed: int  # Ends with a destroy notice.
    scores: dict[str, Score]
    unmatched: int  # Reports on the ports of the workload without a logged connection,
    unlogged: int  # and destroy notices there without one.
    notice_lag_p99: float  # Delay of the notices of the kernel in seconds.
    reused: int  # Ends with the ports of another within two intervals and a second.
    opens: int
    closes: int
    notices: int
    overruns: int
    polls: int | None
    late_polls: int | None
    poll_p99_ms: float | None
    longest_gap: float
    load_seconds: float
    cpu_share: float
    load_average: float  # At the start: other work on the machine.
    violations: dict[str, int]
    examples: list[str]
    events: dict[str, int]

    def as_json(self) -> dict[str, object]:
        """Return all fields."""
        whole: dict[str, object] = asdict(self)
        whole["scores"] = {
            side: {**asdict(one), "patterns": dict(one.patterns.most_common())}
            for side, one in self.scores.items()
        }
        return whole


def result(workload: str, run: Run) -> Result:
    """Compare the reports with the truth."""
    truth, stream, load = run.truth, run.stream, run.load
    noticed = run.notices.notices
    others = unlogged(truth, give_notices(truth.ends, noticed))
    own = os.stat("/proc/self/ns/net").st_ino  # Notices are of this network namespace only.
    reports = [one for one in stream.reports if one.netns == own]
    unmatched = match(truth, others, reports)
    keys = frozenset(end.key for end in truth.ends)
    ours = [one for one in reports if one.opened is not None and belongs(one, truth, keys)]
    inet = [one for one in ours if one.proto != "unix"]
    lags = sorted(end.noticed - end.end for end in truth.ends if end.noticed is not None)
    stats = run.stats
    polls, late, p99 = (None, stream.late_polls, None) if stats is None else stats
    return Result(
        workload=workload,
        interval=run.interval,
        connections=truth.connections,
        noticed=sum(end.noticed is not None for end in truth.ends),
        scores=score(truth.ends, run.interval, truth.programs),
        unmatched=len(unmatched),
        unlogged=len(others),
        notice_lag_p99=lags[int(len(lags) * 0.99)] if lags else 0.0,
        opens=len(inet),
        closes=sum(one.closed is not None for one in inet),
        notices=sum(is_of(one.key, truth, keys) for one in noticed),
        overruns=run.notices.overruns,
        polls=polls,
        late_polls=late,
        poll_p99_ms=p99,
        longest_gap=_longest_gap(stream.times, load.begin, load.end),
        load_seconds=load.end - load.begin,
        cpu_share=load.cpu / (load.end - load.begin),
        load_average=run.load_average,
        reused=reused((*truth.ends, *others), 2 * run.interval + 1),
        violations=dict(stream.violations),
        examples=stream.examples,
        events=dict(stream.counts),
    )


def _longest_gap(times: Sequence[float], begin: float, end: float) -> float:
    """Return the longest time between two polls with reports during the load."""
    during = [one for one in times if begin <= one <= end]
    return max((b - a for a, b in pairwise(during)), default=0.0)


def tables(results: Iterable[Result]) -> str:
    """Return three tables: numbers of reports, times and costs, and kinds of reports."""
    results = list(results)
    return "\n\n".join([_reported(results), _timed(results), _patterns(results)])


def _reported(results: Sequence[Result]) -> str:
    lines = [
        _REPORTED,
        "|---|---:|---|" + "---:|" * 12,
    ]
    for one in results:
        for side, it in sorted(one.scores.items()):
            cells = [
                it.ends,
                it.opened_and_closed,
                _part(it.never, it.ends),
                it.once,
                it.attributed,
                it.shared,
                it.duplicate,
                _part(it.right, it.ends),
                _part(it.null, it.ends),
                it.wrong,
                it.ghosts,
                it.short_lived_long,
            ]
            lines.append(
                f"| {one.workload} | {one.interval:g} | {side} | "
                + " | ".join(map(str, cells))
                + " |"
            )
    return "\n".join(lines)


def _timed(results: Sequence[Result]) -> str:
    lines = [
        _TIMED,
        "|---|" + "---:|" * 18,
    ]
    for one in results:
        delays = sorted(delay for it in one.scores.values() for delay in it.delays)
        cells = [
            one.connections,
            f"{one.load_seconds:.1f}",
            *(_at(delays, share) for share in (0.5, 0.99, 1)),
            sum(it.duration_errors for it in one.scores.values()),
            *("?" if it is None else it for it in (one.polls, one.late_polls, one.poll_p99_ms)),
            f"{one.cpu_share:.2f}",
            one.opens,
            one.closes,
            one.notices,
            f"{one.notice_lag_p99:.2f}",
            one.unlogged,
            one.unmatched,
            sum(one.violations.values()),
        ]
        row = " | ".join(map(str, cells))
        lines.append(f"| {one.workload} | {one.interval:g} | {row} |")
    return "\n".join(lines)


def _patterns(results: Sequence[Result]) -> str:
    """Return the kinds of the reports of an end, with how many ends had them."""
    lines = ["| workload | s | side | reported as |", "|---|---:|---|---|"]
    for one in results:
        for side, it in sorted(one.scores.items()):
            patterns = [f"{count} {name}" for name, count in it.patterns.most_common(8)]
            lines.append(f"| {one.workload} | {one.interval:g} | {side} | {', '.join(patterns)} |")
        lines += [f"| {one.workload} | {one.interval:g} | | {text} |" for text in _rest(one)]
    return "\n".join(lines)


def _rest(one: Result) -> list[str]:
    """Return the other errors."""
    found = [f"**{count} violations**: {what}" for what, count in one.violations.items()]
    for name in ("still_open", "wrong_address"):
        count = sum(getattr(it, name) for it in one.scores.values())
        if count:
            found.append(f"{count} ends: {name.replace('_', ' ')}")
    counts = one.events
    found += [f"{counts[name]} `{name}`" for name in ("lost", "coverage") if counts.get(name)]
    if one.reused:
        found.append(f"{one.reused} ends with the ports of another one shortly before")
    if one.overruns:
        found.append(f"{one.overruns} overruns of this program's own notices")
    return found


def _part(count: int, of: int) -> str:
    return str(count) if not count or not of else f"{count} ({100 * count / of:.1f} %)"


def _at(ordered: Sequence[float], share: float) -> str:
    if not ordered:
        return ""
    return f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))]:.2f}"
