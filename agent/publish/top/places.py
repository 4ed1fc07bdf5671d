"""Where the user is: which rows of what, and the way back. Pure."""

# No deferred annotations, as in agent/model.py: typing.NamedTuple would compile them at import.
from collections.abc import Hashable
from enum import StrEnum
from typing import NamedTuple

from .model import Grouping, GroupKey, SocketKey


class View(StrEnum):
    """What the rows are."""

    GROUPS = "groups"
    SOCKETS = "sockets"
    SOCKET = "socket"
    EVENTS = "events"
    PEERS = "peers"


class Place(NamedTuple):
    """Rows of one kind: of all groups, or of one group or socket. ``title`` says of which,
    for example ``of nginx[812]``."""

    view: View
    grouping: Grouping
    group: GroupKey | None = None
    socket: SocketKey | None = None
    title: str = ""


class Way:
    """The place that is shown, and those on the way to it, each with the row of the cursor."""

    def __init__(self) -> None:
        self.place = Place(View.GROUPS, Grouping.PROCESS)
        self._before: list[tuple[Place, Hashable | None]] = []

    def go(self, place: Place, cursor: Hashable | None) -> None:
        """Go to a place from the row with the cursor."""
        self._before.append((self.place, cursor))
        self.place = place

    @property
    def is_first(self) -> bool:
        """Whether there is no way back."""
        return not self._before

    def back(self) -> Hashable | None:
        """Go back; return the row of the cursor there. At the first place, stay."""
        if not self._before:
            return None
        self.place, cursor = self._before.pop()
        return cursor

    def regroup(self) -> None:
        """Go on to the next grouping, with all its groups."""
        groupings = list(Grouping)
        following = groupings[(groupings.index(self.place.grouping) + 1) % len(groupings)]
        self.place = Place(View.GROUPS, following)
        self._before.clear()
