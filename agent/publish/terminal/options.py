"""What the terminal can show and what the user asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the views.

    ``width`` is that of the terminal, None where nothing may be hidden or shortened. ``ascii``:
    only ASCII characters can be shown. ``columns`` and ``sort`` are names of columns, see
    ``columns.py``. ``wide``: a row for every holder, and more columns. ``hosts``: the event log
    names the host of each line. ``now`` is in seconds since the Unix epoch, for ages; None
    where they cannot be known. ``names`` maps addresses to names, ``services`` protocols and ports.
    ``root_can``: root could read what could not be read.
    """

    width: int | None = None
    color: bool = False
    ascii: bool = False
    utc: bool = False
    header: bool = True
    columns: tuple[str, ...] = ()
    sort: str | None = None
    wide: bool = False
    hosts: bool = False
    now: float | None = None
    root_can: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[tuple[str, int], str] = field(default_factory=dict)

    @property
    def ellipsis(self) -> str:
        """Return what stands for characters that are left out."""
        return "..." if self.ascii else "…"

    @property
    def arrow(self) -> str:
        """Return the arrow from a caller to whom it calls, and from an old value to the new one."""
        return "->" if self.ascii else "→"
