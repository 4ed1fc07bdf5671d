"""Why kernel events cannot be had: one sentence for each reason, which says what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import RuntimeFailure
from ..procfs.files import read_or_empty

TRACEFS_ROOTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
LOCKDOWN_FILE = "/sys/kernel/security/lockdown"
NO_TRACEFS = (
    "no kernel events: this kernel has no tracefs; it must be built with CONFIG_FTRACE and "
    "CONFIG_EVENT_TRACING"
)
NOT_MOUNTED = (
    "no kernel events: tracefs is not mounted; run mount -t tracefs tracefs /sys/kernel/tracing"
)
NO_PERMISSION = (
    "no kernel events: no permission to use tracefs; run as root, or run sudo sockagent events "
    "enable and give the agent CAP_DAC_READ_SEARCH"
)
LOCKED_DOWN = (
    "no kernel events: the kernel lockdown refuses them; boot without lockdown=confidentiality"
)
NO_INSTANCES = "no kernel events: tracefs has no directory for instances; see the kernel log"
NO_MEMORY = "no kernel events: not enough memory for the trace buffers; free some, and try again"
READ_ONLY = (
    "no kernel events: tracefs is mounted read-only; run sudo sockagent events enable outside of "
    "this container or sandbox"
)
TOO_MANY = (
    "no kernel events: the kernel creates no further trace instance; remove unused ones with "
    "rmdir in /sys/kernel/tracing/instances"
)
IN_USE = (
    "no change to the kernel events: another program uses the trace instance; stop it, and try "
    "again"
)
TRACING_DISABLED = (
    "no kernel events: the kernel has disabled tracing after an error of its own; see the kernel "
    "log, and reboot"
)
_SENTENCES = {
    errno.EACCES: NO_PERMISSION,
    errno.ENOMEM: NO_MEMORY,
    errno.EROFS: READ_ONLY,
    errno.ENOSPC: TOO_MANY,
    errno.EMLINK: TOO_MANY,
    errno.EBUSY: IN_USE,
    errno.ENODEV: TRACING_DISABLED,
}


class TraceUnavailable(RuntimeFailure):
    """Kernel events cannot be had; the message gives the reason and what to do."""


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Raise TraceUnavailable in place of OSError. ``path`` is named where the error names none."""
    try:
        yield
    except OSError as error:
        raise TraceUnavailable(explain(error, path)) from error


def explain(error: OSError, path: str) -> str:
    """Return the sentence for an error of a file below ``path`` in tracefs."""
    if error.errno == errno.EPERM:  # Missing permission is EACCES here, except for users' mounts.
        return LOCKED_DOWN if os.geteuid() == 0 else NO_PERMISSION
    known = _SENTENCES.get(error.errno or 0)
    return known or f"no kernel events: {error.filename or path}: {error.strerror or error}"


def missing_event(event: str) -> TraceUnavailable:
    """Return the error for a tracepoint, such as tcp/tcp_destroy_sock, that does not exist."""
    return TraceUnavailable(
        f"no kernel events: this kernel has no tracepoint {event}; use Linux 4.19 or newer"
    )


def instance_in_use(path: str) -> TraceUnavailable:
    """Return the error for an instance that has a reader."""
    return TraceUnavailable(
        f"another agent reads {path}; stop it first, or start this one as root: it then uses an "
        "instance of its own"
    )


def missing_tracefs(
    roots: tuple[str, ...] = TRACEFS_ROOTS, proc: str = "/proc", lockdown: str = LOCKDOWN_FILE
) -> TraceUnavailable:
    """Return the error for a tracefs that was not found at ``roots``."""
    # With lockdown from the start, tracefs is empty or cannot be mounted.
    if b"[confidentiality]" in read_or_empty(lockdown):
        return TraceUnavailable(LOCKED_DOWN)
    if b"tracefs" not in read_or_empty(f"{proc}/filesystems").split():
        return TraceUnavailable(NO_TRACEFS)
    mounts = (line.split() for line in read_or_empty(f"{proc}/self/mounts").splitlines())
    mounted = [
        fields[1].decode() for fields in mounts if len(fields) > 2 and fields[2] == b"tracefs"
    ]
    if not set(mounted) & set(roots):
        return TraceUnavailable(NOT_MOUNTED)
    if any(_is_denied(f"{root}/instances") for root in roots):
        return TraceUnavailable(NO_PERMISSION)
    return TraceUnavailable(NO_INSTANCES)


def _is_denied(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
