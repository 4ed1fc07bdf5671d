"""Before the start: descriptors and threads of the process; warnings of filters that match nothing
and of what the agent may not read."""

from __future__ import annotations

import os
import pwd
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from .kernel.procfs.files import read_or_empty
from .kernel.procfs.sockprotoname import socket_from_protocol
from .kernel.users import is_privileged
from .log import log
from .model import INET_FAMILIES, INET_PROTOS, Coverage
from .snapshot.blocking import MAX_HUNG, THREADS
from .stream.filter_values import is_glob, is_word
from .stream.filters import Filter

# Descriptors without which nothing works: those of the event loop, and a few to read files.
MIN_DESCRIPTORS = 12
# Descriptors left for reading files when sockets are opened in network namespaces, two in each.
RESERVED_DESCRIPTORS = 64
# Threads for other calls that may block, such as resolving host names.
OTHER_THREADS = 4
_PRIVILEGE = "run it as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, to see everything"
_HEADER_LINES = 1  # Of /proc/net/protocols.


class NonJoiningExecutor(ThreadPoolExecutor):
    """A thread pool whose threads are not joined at the end: a call that reads a file system which
    does not answer may never return."""

    def __init__(self) -> None:
        super().__init__(THREADS + MAX_HUNG + OTHER_THREADS)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Cancel the calls that have not begun, and return at once."""
        super().shutdown(wait=False, cancel_futures=True)


def require_descriptors(count: int = MIN_DESCRIPTORS) -> None:
    """Check that so many descriptors can be opened: asyncio leaks some if it runs out of them while
    it creates a loop. Raises OSError."""
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened += os.pipe()
    finally:
        for descriptor in opened:
            os.close(descriptor)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard limit; return the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


def hints(filter: Filter, proc: str, *, all_rows: bool = False) -> Iterator[str]:
    """Yield one sentence for each value of ``filter`` that matches nothing. May block.

    Such a value is usually misspelled. It is not an error: a user may be added later, and the
    module of a protocol loaded. ``proc`` is the path of procfs. ``all_rows``: whether sockets that
    no process holds are listed.
    """
    values: dict[str, set[str]] = {}
    for name, given in filter.values:  # user!=x is as likely to be misspelled as user=x.
        values.setdefault(name.removesuffix("!"), set()).update(given)
    states = dict(filter.values).get("state", ())
    if not all_rows and any(is_word(value, "TIME_WAIT") for value in states):
        yield "no process holds a socket in TIME_WAIT; add --all to list those"
    for user in sorted(values.get("user", ())):
        if not (user.isdigit() or is_glob(user)) and not _is_user(user):
            yield f"there is no user {user!r} on this machine"
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
    """Return the protocols of this kernel, named as in records."""
    lines = read_or_empty(f"{proc}/self/net/protocols").splitlines()[_HEADER_LINES:]
    names = [line.split()[0] for line in lines if line.split()]
    protocols = {
        proto for name in names if (proto := socket_from_protocol(0, name).proto) is not None
    }
    return {*protocols, *INET_PROTOS, "unix", "netlink", "packet"}


def warn(coverage: Coverage) -> None:
    """Log what is missing in the first snapshot, on one line."""
    if coverage.complete:
        return
    missing = "; ".join(coverage.missing)
    if coverage.unreadable:
        missing += f" ({coverage.unreadable} of {coverage.processes} processes)"
        if not is_privileged():
            missing += f"; {_PRIVILEGE}"
    log(f"warning: {missing}")
