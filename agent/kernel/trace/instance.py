"""The private tracefs instance that the agent reads kernel events from.

An instance is a directory in ``instances`` of tracefs with buffers and settings of its own: the
global trace, and the instances of other programs, are not changed. Setting one up requires root;
reading it requires CAP_DAC_READ_SEARCH only. Everything here may block.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from typing import NamedTuple

from ..procfs.files import read
from .events import EVENTS as DECODED_EVENTS
from .events import SET_STATE, UDP_EVENTS
from .reader_lock import has_reader
from .unavailable import (
    TRACEFS_ROOTS,
    TraceUnavailable,
    explained,
    instance_in_use,
    missing_event,
    missing_tracefs,
)

# The instance of the service; an agent that is started by hand appends its pid: sockagent-1234.
SERVICE_INSTANCE = "sockagent"
EVENTS = tuple(DECODED_EVENTS)
# Of SET_STATE. Protocol 6 is TCP; 0x18 is the context of a soft or hard interrupt. States:
# 1 ESTABLISHED, 2 SYN_SENT, 4 FIN_WAIT1, 7 CLOSE, 8 CLOSE_WAIT, 9 LAST_ACK, 10 LISTEN. In an
# interrupt the current process is not the acting one: transitions that are recorded for their
# process are left out there. This omits a third of the events.
STATE_FILTER = (
    "protocol==6 && (newstate==1 || newstate==2 || newstate==8 || !(common_flags & 0x18) && "
    "(newstate==4 || newstate==7 || newstate==9 || newstate==10))"
)

# Sizes in KiB of the buffer of each CPU. 4 MiB hold 54,800 events, and 13,700 TCP sockets that
# open and close. 16 MiB lost nothing while a reader paused for 2 s at 12,800 connections/s.
BUFFER_KIB = 4 << 10
MAX_BUFFER_KIB = 16 << 10
MAX_TOTAL_KIB = 64 << 10  # Of the larger buffers together; the kernel allocates them at once.
MIN_BUFFER_KIB = 1 << 10  # The kernel's default for a trace is 1.4 MiB.

_WRITE_FLAGS = os.O_WRONLY | os.O_CLOEXEC
_CPU = re.compile(r"cpu(\d+)")
_OF_PROCESS = re.compile(rf"{SERVICE_INSTANCE}-([1-9]\d*)")
# Lines of per_cpu/cpu*/stats that count events which were not kept.
_LOST = ("overrun", "commit overrun", "dropped events")


class TraceInstance(NamedTuple):
    """An instance that is set up."""

    root: str  # The mount point of tracefs.
    name: str
    path: str
    buffer_kib: int  # Of each CPU. The kernel rounds it up to whole pages.
    filtered: bool  # False: the kernel refused STATE_FILTER and records every transition.


class InstanceStatus(NamedTuple):
    """The state of an instance; all zero if it does not exist."""

    exists: bool = False
    on: bool = False
    events: tuple[str, ...] = ()  # Those of EVENTS that are enabled.
    udp: bool = False  # Whether UDP_EVENTS are enabled.
    has_reader: bool = False
    cpus: int = 0
    buffer_kib: int = 0  # Of each CPU.
    entries: int = 0  # Events that wait for a reader.
    lost: int = 0  # Events that were overwritten or dropped since the instance was set up.


def find_tracefs(roots: tuple[str, ...] = TRACEFS_ROOTS) -> str | None:
    """Return the path of tracefs; None if it is not mounted or not accessible."""
    return next((root for root in roots if os.path.isdir(f"{root}/instances")), None)


def require_tracefs(roots: tuple[str, ...] = TRACEFS_ROOTS, proc: str = "/proc") -> str:
    """Return the path of tracefs. Raises TraceUnavailable."""
    root = find_tracefs(roots)
    if root is None:
        raise missing_tracefs(roots, proc)
    return root


def buffer_kib(cpus: int, *, can_stall: bool) -> int:
    """Return the size of the buffer of each CPU in KiB.

    ``can_stall``: whether the reader may pause for some seconds, as the service may.
    """
    if not can_stall:
        return BUFFER_KIB
    return max(BUFFER_KIB, min(MAX_BUFFER_KIB, MAX_TOTAL_KIB // cpus))


def enable(root: str, name: str, buffer_kib: int) -> TraceInstance:
    """Set up an instance, or an existing one again; its old events are discarded.

    The events of an instance that has a reader are kept, and its buffers are not resized. Where
    memory is scarce, the buffers are smaller than ``buffer_kib``. Raises TraceUnavailable.
    """
    path = path_of(root, name)
    with explained(root):
        created = _make_directory(path)
        try:
            if created or not has_reader(path):
                write(f"{path}/tracing_on", "0")
                # With this clock, the time of a fork gives the start time of the process in procfs.
                write(f"{path}/trace_clock", "boot")
                with suppress(
                    FileNotFoundError
                ):  # Since Linux 5.0; before, the file is not needed.
                    # By default poll(2) waits until the buffer is half full.
                    write(f"{path}/buffer_percent", "0")
                _resize(path, buffer_kib)
                _discard_events(path)
            # The option record-cmd, which costs time in sched_switch, stays on: to turn it off in
            # one instance also turns it off for the enabled events of all others.
            filtered = _set_filter(path)
            for event in EVENTS:
                _enable_event(path, event)
            write(f"{path}/tracing_on", "1")
            return TraceInstance(root, name, path, _buffer_size(path), filtered)
        except (OSError, TraceUnavailable):
            if created:
                with suppress(OSError):
                    os.rmdir(path)
            raise


def disable(root: str, name: str) -> None:
    """Remove an instance, if it exists. Raises TraceUnavailable, also if an agent reads it."""
    path = path_of(root, name)
    with explained(root), suppress(FileNotFoundError):
        if has_reader(path):
            raise instance_in_use(path)
        write(f"{path}/tracing_on", "0")
        write(f"{path}/events/enable", "0")
        os.rmdir(path)


def status(root: str, name: str) -> InstanceStatus:
    """Return the state of an instance. Raises TraceUnavailable."""
    path = path_of(root, name)
    with explained(root), suppress(FileNotFoundError):
        os.stat(path)
        entries = lost = 0
        files, enabled = trace_files(path), enabled_events(path)
        for file in files:
            stats = _counters(f"{os.path.dirname(file)}/stats")
            entries += stats.get("entries", 0)
            lost += sum(stats.get(field, 0) for field in _LOST)
        return InstanceStatus(
            exists=True,
            on=_is_on(path),
            events=tuple(event for event in EVENTS if event in enabled),
            udp=enabled.issuperset(UDP_EVENTS),
            has_reader=has_reader(path),
            cpus=len(files),
            buffer_kib=_buffer_size(path),
            entries=entries,
            lost=lost,
        )
    return InstanceStatus()


def is_intact(path: str) -> bool:
    """Return whether an instance still exists and records all events (two reads, 40 us)."""
    try:
        return _is_on(path) and enabled_events(path).issuperset(EVENTS)
    except OSError:
        return False


def read_formats(path: str) -> tuple[str, dict[str, str]]:
    """Return the format of a page, and the format of each of EVENTS by its name.

    Raises TraceUnavailable.
    """
    with explained(path):
        page = read(f"{path}/events/header_page").decode()
        return page, {event: read(f"{path}/events/{event}/format").decode() for event in EVENTS}


def trace_files(path: str) -> list[str]:
    """Return the paths of the binary trace of each CPU, in the order of the CPUs.

    CPUs that are not online are included. Raises TraceUnavailable.
    """
    with explained(path):
        found = (_CPU.fullmatch(name) for name in os.listdir(f"{path}/per_cpu"))
        cpus = sorted(int(cpu[1]) for cpu in found if cpu)
    return [f"{path}/per_cpu/cpu{cpu}/trace_pipe_raw" for cpu in cpus]


def remove_abandoned(root: str, proc: str = "/proc") -> list[str]:
    """Remove instances of agents that were started by hand and killed; return their names.

    An instance is kept if it has a reader, which may be in another pid namespace, and if its pid
    belongs to a process that could be an agent.
    """
    removed = []
    names = []
    with suppress(OSError):
        names = os.listdir(f"{root}/instances")
    for name in sorted(names):
        found = _OF_PROCESS.fullmatch(name)
        if found and not _may_be_agent(f"{proc}/{found[1]}"):
            with suppress(TraceUnavailable):
                disable(root, name)
                removed.append(name)
    return removed


def _may_be_agent(process: str) -> bool:
    """Return whether the process with this directory in procfs could be an agent."""
    try:
        return b"agent" in read(f"{process}/cmdline") + read(f"{process}/comm")
    except FileNotFoundError:
        return False
    except OSError:
        return os.path.exists(process)


def path_of(root: str, name: str) -> str:
    """Return the path of an instance."""
    return f"{root}/instances/{name}"


def _make_directory(path: str) -> bool:
    """Create an instance; return False if it exists."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    return True


def _resize(path: str, kib: int) -> None:
    """Set the size of the buffer of each CPU, or a smaller one for which there is memory."""
    while True:
        try:
            write(f"{path}/buffer_size_kb", str(kib))
            return
        except OSError as error:
            if error.errno != errno.ENOMEM or kib <= MIN_BUFFER_KIB:
                raise
        kib = max(kib // 2, MIN_BUFFER_KIB)


def _buffer_size(path: str) -> int:
    """Return the size of the buffer of a CPU in KiB."""
    # The file of the instance contains "X" while the CPUs differ. A buffer that was never used has
    # "7 (expanded: 1408)".
    return int(read(f"{path}/per_cpu/cpu0/buffer_size_kb").split()[0])


def _discard_events(path: str) -> None:
    """Empty the buffers, and set the counts of lost events to zero."""
    os.close(os.open(f"{path}/trace", _WRITE_FLAGS | os.O_TRUNC))


def _set_filter(path: str) -> bool:
    """Set the filter; return False if the kernel refuses it."""
    file = f"{path}/events/{SET_STATE}/filter"
    try:
        write(file, STATE_FILTER)
    except FileNotFoundError:
        raise missing_event(SET_STATE) from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        write(file, "0")  # Otherwise the file keeps the message of the error.
        return False
    return True


def _enable_event(path: str, event: str) -> None:
    try:
        write(f"{path}/events/{event}/enable", "1")
    except FileNotFoundError:
        raise missing_event(event) from None


def enabled_events(path: str) -> set[str]:
    """Return all enabled events, as "group/name". Raises OSError."""
    return set(read(f"{path}/set_event").decode().replace(":", "/").split())


def _is_on(path: str) -> bool:
    return read(f"{path}/tracing_on").strip() == b"1"


def _counters(file: str) -> dict[str, int]:
    """Return the counters of a ``stats`` file by name; other lines are left out."""
    pairs = (line.partition(":") for line in read(file).decode().splitlines())
    return {name: int(value) for name, _colon, value in pairs if value.strip().isdecimal()}


def write(file: str, text: str) -> None:
    """Write to a control file. Raises OSError."""
    descriptor = os.open(file, _WRITE_FLAGS)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
