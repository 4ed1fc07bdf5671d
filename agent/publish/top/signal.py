"""Signals to processes of this machine, which never reach another process that has the pid by now.

A pidfd refers to one process for ever (pidfd_open(2)). It is opened first; then the start time of
the process that has the pid is compared with that of the process that was chosen; then the signal
is sent over the pidfd.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ...model import Process

# What may be typed, and what it sends.
SIGNALS = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL}
# The field of /proc/PID/stat with the start time, counted from the one after the name.
_START_FIELD = 19


class Target(NamedTuple):
    """A process of this machine: ``(pid, start_ticks)`` is its identity, as in ``Process``."""

    pid: int
    start_ticks: int
    comm: str
    start_time: float
    unit: str | None


class NotSent(Exception):
    """No signal was sent; the message says why."""


def target_of(process: Process) -> Target:
    """Return a process as the target of a signal."""
    return Target(process.pid, process.start_ticks, process.comm, process.start_time, process.unit)


def start_ticks(pid: int) -> int:
    """Return the start time of the process that has a pid, in clock ticks since boot. Raises
    OSError and ValueError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    if len(fields) <= _START_FIELD:
        raise ValueError("not a stat line")
    return int(fields[_START_FIELD])


def send(
    target: Target, number: signal.Signals, started: Callable[[int], int] = start_ticks
) -> None:
    """Send a signal to a process, and to no other one. Raises NotSent."""
    name = f"{target.comm}[{target.pid}]"
    try:
        descriptor = os.pidfd_open(target.pid)
    except ProcessLookupError:
        raise NotSent(f"{name} has ended") from None
    except OSError as error:
        raise NotSent(f"pidfd_open: {error.strerror}") from error
    try:
        if started(target.pid) != target.start_ticks:
            raise NotSent(f"{name} has ended; its pid is that of another process, which got none")
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, FileNotFoundError):
        raise NotSent(f"{name} has ended") from None
    except ValueError as error:
        raise NotSent(f"the start time of {name} cannot be read") from error
    except OSError as error:
        raise NotSent(f"{name}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            os.close(descriptor)
