"""When which process of a fleet is killed, and when it is started again. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

# Seconds without kills: until all processes run, and until the last one that was killed has caught
# up.
BEGIN_SECONDS, END_SECONDS = 3.0, 6.0
DOWN_SECONDS = (0.1, 2.0)
# How old the store is that replaces the broker's.
OLDER_SECONDS = (1.0, 4.0)
BROKER = "broker"
_MAX_ATTEMPTS = 10_000


class Fault(Enum):
    """What happens to a process."""

    KILL = "kill -9"
    RESTART = "restart"  # As by ``systemctl restart``.
    OUTAGE = "outage"
    OLDER = "older store"


class Event(NamedTuple):
    """A fault of the process ``name`` at ``time``, in seconds from the beginning, for ``down``
    seconds; of ``OLDER``, ``down`` is the age of the store."""

    time: float
    name: str
    fault: Fault
    down: float


class Wanted(NamedTuple):
    """How many faults: kills of anything, restarts of agents, replaced stores; seconds of one
    outage, and seconds that a process runs between two faults at least."""

    kills: int
    restarts: int = 0
    older: int = 0
    outage: float = 0.0
    between: float = 0.5


def plan(
    seed: int, seconds: float, kinds: Mapping[str, Sequence[str]], wanted: Wanted
) -> list[Event]:
    """Return the faults in their order. ``kinds`` has the names of the processes by kind: each kind
    is killed as often, ``agent`` is restarted, ``broker`` gets older stores. Raises ValueError.

    A process has one fault at a time; with replaced stores or an outage the broker has no others.
    """
    rng = random.Random(seed)
    names = sorted(kinds)
    faults: list[tuple[str, Fault]] = []
    is_alone = wanted.older or wanted.outage
    killed = [kind for kind in names if not (is_alone and kind == BROKER)]
    faults += [(killed[index % len(killed)], Fault.KILL) for index in range(wanted.kills)]
    faults += [("agent", Fault.RESTART)] * wanted.restarts
    faults += [(BROKER, Fault.OLDER)] * wanted.older
    if wanted.outage:
        faults.append((BROKER, Fault.OUTAGE))
    rng.shuffle(faults)
    # The long ones choose their time first.
    faults.sort(key=lambda one: one[1] not in (Fault.OUTAGE, Fault.OLDER))
    events: list[Event] = []
    for kind, fault in faults:
        events.append(_place(rng, seconds, kinds[kind], fault, wanted, events))
    return sorted(events)


def _place(
    rng: random.Random,
    seconds: float,
    names: Sequence[str],
    fault: Fault,
    wanted: Wanted,
    events: Sequence[Event],
) -> Event:
    """Return a fault at a time at which its process has no other. Raises ValueError."""
    for _ in range(_MAX_ATTEMPTS):
        name = rng.choice(names)
        down = rng.uniform(*DOWN_SECONDS)
        if fault is Fault.OLDER:
            down = rng.uniform(*OLDER_SECONDS)
        elif fault is Fault.OUTAGE:
            down = wanted.outage
        last = seconds - END_SECONDS - down
        at = rng.uniform(BEGIN_SECONDS, last)
        others = (one for one in events if one.name == name)
        between = wanted.between
        if all(
            at > one.time + one.down + between or one.time > at + down + between for one in others
        ):
            return Event(at, name, fault, down)
    raise ValueError("there are too many faults for the time")


def summary(events: Sequence[Event], kinds: Mapping[str, Sequence[str]]) -> str:
    """Return how many faults of which kind there are, as a sentence."""
    kind_of = {name: kind for kind, names in kinds.items() for name in names}
    counts = Counter((event.fault, kind_of[event.name]) for event in events)
    return ", ".join(f"{count} {fault.value} of {kind}s" for (fault, kind), count in counts.items())
