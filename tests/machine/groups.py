"""Which tests run one after the other where several processes run tests."""

from __future__ import annotations

REST = "machine"
# The beginnings of the names of files whose tests are another group.
GROUPS = {"test_page": "browser", "test_fleet": "fleet", "test_publish": "fleet", "test_top": "top"}
# They share a container.
IN_CONTAINER = frozenset({"test_service.py", "test_fleet_service.py"})


def group_of(name: str) -> str:
    """Return the group of a file of this directory."""
    if name in IN_CONTAINER:
        return REST
    return next((group for start, group in GROUPS.items() if name.startswith(start)), REST)
