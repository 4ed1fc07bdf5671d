"""What the agent is asked to do: one frozen value, validated once. It knows no argparse."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .errors import UsageError
from .filters import Filter

INTERVAL_SECONDS = 1.0
# Below this a poll of a large machine takes longer than the time between two.
SHORTEST_INTERVAL_SECONDS = 0.05
# Below this the lines are of no use to a reader.
SHORTEST_STATS_SECONDS = 0.1

# In so many seconds every descriptor is read again, whatever the evidence says.
SWEEP_SECONDS = 60.0
# Where the tables are read: text in procfs, sock_diag over netlink, or netlink where it works.
SOURCES = ("auto", "procfs", "netlink")


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one run. Raises UsageError, naming the option at fault."""

    follow: bool = False
    interval: float = INTERVAL_SECONDS  # Seconds from one poll to the next.
    sweep: float = SWEEP_SECONDS  # Seconds in which everything is read again.
    stats: float | None = None  # Seconds between two lines about the agent itself.
    all: bool = False
    cmdline: bool = False
    proc: str = "/proc"
    source: str = "auto"  # One of SOURCES.
    filter: Filter = field(default_factory=Filter)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.interval) and self.interval >= SHORTEST_INTERVAL_SECONDS):
            raise UsageError(
                "interval",
                f"must be a number of seconds, at least {SHORTEST_INTERVAL_SECONDS}",
            )
        if not (math.isfinite(self.sweep) and self.sweep > 0):
            raise UsageError("sweep", "must be a number of seconds above 0")
        if self.stats is not None and not (
            math.isfinite(self.stats) and self.stats >= SHORTEST_STATS_SECONDS
        ):
            raise UsageError(
                "stats", f"must be a number of seconds, at least {SHORTEST_STATS_SECONDS}"
            )
        if self.stats is not None and not self.follow:
            raise UsageError("stats", "there are polls to tell of only with --follow")
        if "snapshot" not in self.filter.events and not self.follow:
            raise UsageError("event", "without --follow there are only snapshot records")
        if self.all and self.follow:
            raise UsageError("all", "only a one-shot snapshot has rows that no process can hold")
