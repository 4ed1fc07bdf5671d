"""Time two ways of doing the same, in turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import NamedTuple

# A timed run repeats the calls until it takes about this long.
_RUN_SECONDS = 0.02


class Pair(NamedTuple):
    """Two calls: the way that was chosen, and the one ``instead``; each handles ``items``."""

    chosen: Callable[[], object]
    instead: Callable[[], object]
    items: int = 1


class Cost(NamedTuple):
    """Medians of microseconds per item, and of the rounds' ratios with their quartiles."""

    chosen: float
    instead: float
    ratios: tuple[float, float, float]


# Returns the pair to measure. The first line of its docstring is "CHOSEN; INSTEAD".
Benchmark = Callable[[], Pair]


def measure(pair: Pair, rounds: int, clock: Callable[[], float] = time.process_time) -> Cost:
    """Time both calls in turn, and the second one first in every other round."""
    calls = (pair.chosen, pair.instead)
    repeats = [_repeats(call, clock) for call in calls]
    seconds: tuple[list[float], list[float]] = ([], [])
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for index in (0, 1) if number % 2 else (1, 0):
                spent = _run(calls[index], repeats[index], clock)
                seconds[index].append(spent / repeats[index] / pair.items * 1e6)
    finally:
        gc.enable()
    ratios = [one / other for one, other in zip(*seconds, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive") if rounds > 1 else ratios * 3
    return Cost(median(seconds[0]), median(seconds[1]), (low, middle, high))


def _repeats(call: Callable[[], object], clock: Callable[[], float]) -> int:
    call()
    took = _run(call, 1, clock)
    return max(1, round(_RUN_SECONDS / max(took, 1e-7)))


def _run(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    begin = clock()
    for _ in range(repeats):
        call()
    return clock() - begin
