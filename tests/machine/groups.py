"""Which tests run one after the other where several processes run tests."""

from __future__ import annotations

from pathlib import Path

REST = "machine"
# The beginnings of the names of files whose tests are another group.
GROUPS = {"test_page": "browser", "test_fleet": "fleet", "test_publish": "fleet", "test_top": "top"}
# They share a container.
IN_CONTAINER = frozenset({"test_service.py", "test_fleet_service.py"})


# All other tests run between these.
_FIRST = ("fleet", "browser", "top")


def group_of(name: str) -> str:
    """Return the group of a file of this directory."""
    if name in IN_CONTAINER:
        return REST
    return next((group for start, group in GROUPS.items() if name.startswith(start)), REST)


def place_of(path: Path) -> int:
    """Return what sorts the tests of a file."""
    if path.parent != Path(__file__).parent:
        return len(_FIRST)
    group = group_of(path.name)
    return _FIRST.index(group) if group in _FIRST else len(_FIRST) + 1
