"""A long run under churn: memory and descriptors of the agent must not grow."""

from __future__ import annotations

import time
from typing import NamedTuple

from . import churn
from .agents import following, installed

SAMPLE_SECONDS = 5.0


class Soak(NamedTuple):
    """Memory in KiB and descriptors of the agent after the first minute and at the end."""

    minutes: float
    lines: int
    rss_first: int
    rss_last: int
    rss_max: int
    descriptors_first: int
    descriptors_last: int
    cpu_ms: float

    def sentence(self) -> str:
        """Return the result as a sentence."""
        grown = self.rss_last / self.rss_first - 1
        verdict = "pass" if grown <= 0.05 else "**miss**"
        return (
            f"{self.minutes:.0f} minutes under churn, {self.lines} records: RSS "
            f"{self.rss_first / 1024:.1f} MiB after the first minute, {self.rss_last / 1024:.1f} "
            f"at the end, {self.rss_max / 1024:.1f} at most ({grown:+.1%}, at most 5 %: "
            f"{verdict}); descriptors {self.descriptors_first} and {self.descriptors_last}; "
            f"{self.cpu_ms:.1f} ms of CPU a poll."
        )


def soak(minutes: float) -> Soak:
    """Follow for this long while 20 processes open and close 200 sockets per second."""
    with (
        churn.running(20, 200),
        following(installed(), "--interval", "1", "--stats", "60") as agent,
    ):
        time.sleep(60)
        first, descriptors, cpu = agent.rss(), agent.descriptors(), agent.cpu()
        start = time.monotonic()
        highest = first
        while time.monotonic() - start < (minutes - 1) * 60:
            time.sleep(SAMPLE_SECONDS)
            highest = max(highest, agent.rss())
        took = time.monotonic() - start
        return Soak(
            minutes,
            agent.lines,
            first,
            agent.rss(),
            highest,
            descriptors,
            agent.descriptors(),
            (agent.cpu() - cpu) / took * 1000,
        )
