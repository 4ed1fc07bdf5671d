"""Reports from trace events against their bars: one row for each workload. Pure.

Each workload ran with ``--events off`` and ``--events on`` in turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from .recorded import Run
from .truth import Score
from .verdict import Result

# Below this rate of connections per second reports arrive earlier.
_SLOW_RATE = 1000


class Measured(NamedTuple):
    """A run and its comparison with the truth."""

    run: Run
    result: Result

    @property
    def rate(self) -> float:
        """Connections per second."""
        return self.result.connections / self.result.load_seconds


@dataclass(frozen=True, slots=True)
class Row:
    """All rounds of one workload. Shares are None if there is nothing of which they are."""

    workload: str
    connections: int
    rate: float  # Connections per second with events, the median.
    recall: dict[str, float | None]  # Shares by side: reported with an open and a close,
    right: dict[str, float | None]  # with the right process,
    comm: float | None  # and of those: with the right name, parent and program.
    ppid: float | None
    exe: float | None
    wrong: int
    null: int
    duplicate: int
    lost: int | None  # Events.
    cpu_per_socket: float  # Microseconds,
    cpu_share: float  # and share of a core, without what the agent takes when nothing happens.
    cpu_per_socket_off: float
    rate_ratio: float  # On to off, the median of the pairs.
    is_exact: bool  # The ends are those that the clients saw, not those of a log.
    lag_p50: float | None  # From the end to the receipt of the record.
    lag_p99: float | None
    confirmed: float | None  # Share of destroy notices whose sockets events reported too.
    violations: int
    notes: tuple[str, ...]


def row(workload: str, pairs: Sequence[tuple[Measured, Measured]]) -> Row:
    """Return the row of the pairs of runs: without events and with them."""
    on = [one for _off, one in pairs]
    off = [one for one, _on in pairs]
    scores = [(side, score) for one in on for side, score in one.result.scores.items()]
    programs = sum((score.programs for _side, score in scores), Counter[str]())
    is_exact = all(one.run.truth.is_exact for one in on)
    sides = ("client",) if is_exact else ("client", "server")
    lags = sorted(lag for side, score in scores if side in sides for lag in score.lags)
    return Row(
        workload=workload,
        connections=sum(one.result.connections for one in on),
        rate=median(one.rate for one in on),
        recall=_by_side(scores, lambda score: score.opened_and_closed),
        right=_by_side(scores, lambda score: score.right),
        comm=_share(programs["comm"], programs["comm of"]),
        ppid=_share(programs["ppid"], programs["ppid of"]),
        exe=_share(programs["exe"], programs["exe of"]),
        wrong=sum(score.wrong for _side, score in scores),
        null=sum(score.null for _side, score in scores),
        duplicate=sum(score.duplicate for _side, score in scores),
        lost=_lost(on),
        cpu_per_socket=median(map(_cpu_per_socket, on)),
        cpu_share=median(one.run.load.work / one.result.load_seconds for one in on),
        cpu_per_socket_off=median(map(_cpu_per_socket, off)),
        rate_ratio=median(second.rate / first.rate for first, second in pairs),
        is_exact=is_exact,
        lag_p50=_at(lags, 0.5),
        lag_p99=_at(lags, 0.99),
        confirmed=_confirmed(on),
        violations=sum(sum(one.result.violations.values()) for one in on),
        notes=tuple(_notes(on)),
    )


def _by_side(
    scores: Iterable[tuple[str, Score]], count: Callable[[Score], int]
) -> dict[str, float | None]:
    shares: dict[str, float | None] = {}
    for side in ("client", "server"):
        mine = [score for name, score in scores if name == side]
        shares[side] = _share(sum(map(count, mine)), sum(one.ends for one in mine))
    return shares


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _at(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def _cpu_per_socket(one: Measured) -> float:
    return one.run.load.work * 1e6 / max(1, 2 * one.result.connections)


def _lost(runs: Iterable[Measured]) -> int | None:
    """Return how many events were lost: as the agent says, or as the trace instance says."""
    found = [one.run.overrun if one.run.events is None else one.run.events.lost for one in runs]
    known = [count for count in found if count is not None]
    return sum(known) if known else None


def _confirmed(runs: Iterable[Measured]) -> float | None:
    counted = [one.run.events for one in runs if one.run.events is not None]
    return _share(sum(one.with_events for one in counted), sum(one.ends for one in counted))


def _notes(runs: Sequence[Measured]) -> list[str]:
    """Return what is not as it should be, and what else explains the figures."""
    notes = []
    wrong = sum(
        (score.wrong_programs for one in runs for score in one.result.scores.values()),
        Counter[str](),
    )
    notes += [f"{count} with {what}" for what, count in wrong.most_common(3)]
    for one in runs:
        notes += [f"violation: {text}" for text in one.result.examples[:2]]
    patterns: Counter[str] = Counter()
    for one in runs:
        for side, score in one.result.scores.items():
            patterns.update({f"{side}: {name}": n for name, n in score.patterns.items()})
    notes += [f"{n} {name}" for name, n in patterns.most_common() if not name.endswith(": right")]
    for name, count in (
        ("reports of no connection", sum(one.result.unmatched for one in runs)),
        ("sockets in no log", sum(one.result.unlogged for one in runs)),
        ("sockets with the ports of an earlier one", sum(one.result.reused for one in runs)),
    ):
        if count:
            notes.append(f"{count} {name}")
    return notes


class _Column(NamedTuple):
    """A column: its head, the figure as text, and whether it reaches the bar; None: no bar."""

    head: str
    text: Callable[[Row], str]
    passes: Callable[[Row], bool | None] = lambda _row: None


def _at_least(value: float | None, bar: float) -> bool | None:
    return None if value is None else value >= bar


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{1000 * value:.0f}"


def _max_lag(one: Row) -> float:
    return 0.05 if one.rate < _SLOW_RATE else 0.15


_COLUMNS = (
    _Column("workload", lambda one: one.workload),
    _Column("connections", lambda one: str(one.connections)),
    _Column("per s", lambda one: f"{one.rate:.0f}"),
    _Column(
        "recall client (100 %)",
        lambda one: _percent(one.recall["client"]),
        lambda one: _at_least(one.recall["client"], 1),
    ),
    _Column(
        "recall server (100 %)",
        lambda one: _percent(one.recall["server"]),
        lambda one: _at_least(one.recall["server"], 1),
    ),
    _Column(
        "right pid client (100 %)",
        lambda one: _percent(one.right["client"]),
        lambda one: _at_least(one.right["client"], 1),
    ),
    _Column(
        "right pid server (99.7 %)",
        lambda one: _percent(one.right["server"]),
        lambda one: _at_least(one.right["server"], 0.997),
    ),
    _Column("comm (100 %)", lambda one: _percent(one.comm), lambda one: _at_least(one.comm, 1)),
    _Column("ppid (100 %)", lambda one: _percent(one.ppid), lambda one: _at_least(one.ppid, 1)),
    _Column("exe (99 %)", lambda one: _percent(one.exe), lambda one: _at_least(one.exe, 0.99)),
    _Column("wrong pid (0)", lambda one: str(one.wrong), lambda one: one.wrong == 0),
    _Column("null pid", lambda one: str(one.null)),
    _Column("twice (0)", lambda one: str(one.duplicate), lambda one: one.duplicate == 0),
    _Column(
        "events lost (0)",
        lambda one: "?" if one.lost is None else str(one.lost),
        lambda one: None if one.lost is None else one.lost == 0,
    ),
    _Column(
        "CPU, µs a socket (8)",
        lambda one: f"{one.cpu_per_socket:.1f}",
        lambda one: one.cpu_per_socket <= 8,
    ),
    _Column("µs, events off", lambda one: f"{one.cpu_per_socket_off:.1f}"),
    _Column(
        "CPU (8 % at 5,000 per s)",
        lambda one: f"{100 * one.cpu_share:.1f} %",
        lambda one: one.cpu_share <= 0.08 if one.rate <= 5000 else None,
    ),
    _Column(
        "rate on/off (0.93)",
        lambda one: f"{one.rate_ratio:.2f}",
        lambda one: one.rate_ratio >= 0.93,
    ),
    _Column("delay p50, ms", lambda one: ("" if one.is_exact else "~") + _ms(one.lag_p50)),
    _Column(
        "p99 (50; 150 above 1,000 per s)",
        lambda one: _ms(one.lag_p99),
        lambda one: None if one.lag_p99 is None else one.lag_p99 <= _max_lag(one),
    ),
    _Column(
        "notices with events (100 %)",
        lambda one: "?" if one.confirmed is None else _percent(one.confirmed),
        lambda one: _at_least(one.confirmed, 1),
    ),
    _Column("violations (0)", lambda one: str(one.violations), lambda one: one.violations == 0),
)


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table, with bars in its head, and their notes."""
    rows = list(rows)
    lines = [
        "| " + " | ".join(column.head for column in _COLUMNS) + " |",
        "|---|" + "---:|" * (len(_COLUMNS) - 1),
    ]
    lines += ["| " + " | ".join(_cell(column, one) for column in _COLUMNS) + " |" for one in rows]
    lines += [""] + [f"- {one.workload}: {note}" for one in rows for note in one.notes]
    return "\n".join(lines)


def _cell(column: _Column, one: Row) -> str:
    passes = column.passes(one)
    mark = "" if passes is None else " pass" if passes else " **miss**"
    return column.text(one) + mark


def misses(one: Row) -> list[str]:
    """Return the heads of the columns whose bar a row misses."""
    return [column.head for column in _COLUMNS if column.passes(one) is False]
