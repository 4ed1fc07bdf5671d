"""Filter values that match nothing on this machine, mostly misspelled: told, but not refused. A
protocol's module may be loaded later, a user be added.

It knows filters and what the kernel calls its protocols. Blocking.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator

from .kernel.capabilities import is_privileged
from .kernel.procfs.files import read_or_empty
from .kernel.procfs.sockprotoname import socket_from_protocol
from .log import log
from .model import INET_FAMILIES, INET_PROTOS, Coverage
from .stream.filters import Filter, is_glob

_PRIVILEGE = "run it as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, to see everything"
_HEADED = 1  # Lines before the first protocol in /proc/net/protocols.


def hints(filter: Filter, proc: str, *, all_rows: bool = False) -> Iterator[str]:
    """One sentence for each value of ``filter`` that matches nothing; ``proc`` is the procfs.

    ``all_rows``: whether those are told too that no process can hold.
    """
    values = dict(filter.values)
    if not all_rows and any(value.upper() == "TIME_WAIT" for value in values.get("state", ())):
        yield "sockets in TIME_WAIT belong to no process: they come with --all only"
    for user in sorted(values.get("user", ())):
        if not (user.isdigit() or is_glob(user)) and not _is_user(user):
            yield f"there is no user {user!r} here"
    if values.keys() & {"proto", "family"}:
        known = {"proto": _protocols(proc)}
        known["family"] = (known["proto"] - set(INET_PROTOS)) | INET_FAMILIES
        for name, names in known.items():
            for value in sorted(values.get(name, ())):
                if value.lower() not in names and not is_glob(value):
                    yield f"this kernel has no {name} {value!r}; it has {', '.join(sorted(names))}"


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _protocols(proc: str) -> set[str]:
    """The protocols that this kernel has, as records name them."""
    lines = read_or_empty(f"{proc}/self/net/protocols").splitlines()[_HEADED:]
    names = [line.split()[0] for line in lines if line.split()]
    protocols = {
        proto for name in names if (proto := socket_from_protocol(0, name).proto) is not None
    }
    return {*protocols, *INET_PROTOS, "unix", "netlink", "packet"}


def warn(coverage: Coverage) -> None:
    """Say once on stderr what cannot be seen."""
    if coverage.complete:
        return
    missing = "; ".join(coverage.missing)
    if coverage.unreadable:
        missing += f" ({coverage.unreadable} of {coverage.processes} processes)"
        if not is_privileged():
            missing += f"; {_PRIVILEGE}"
    log(f"warning: {missing}")
