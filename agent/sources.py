"""The sources of this machine: procfs, sock_diag and kernel events, as far as they can be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .config import Config
from .errors import RuntimeFailure
from .kernel.netlink.client import NetlinkClient
from .kernel.procfs.mount import ProcFS
from .kernel.procfs.scanner import ProcessScanner
from .kernel.users import is_privileged
from .log import log
from .preflight import RESERVED_DESCRIPTORS, hints, raise_descriptor_limit
from .snapshot.blocking import BlockingCalls, CallTimeout
from .snapshot.refresh import reserved_fds
from .snapshot.table_sources import EventSource, TableSource, sources_of
from .text import decode

if TYPE_CHECKING:  # A one-shot snapshot does not load what only following takes.
    from .snapshot.trace_events import TraceEvents

Machine = tuple[str, str | None]  # Host name and boot id.


async def open_procfs(config: Config) -> tuple[ProcessScanner, Machine]:
    """Open procfs, and warn of filters that match nothing. Raises RuntimeFailure."""

    def blocking() -> tuple[ProcessScanner, str | None]:
        procfs = ProcFS(config.proc)
        return ProcessScanner(procfs, cmdline=config.cmdline), procfs.boot_id()

    try:
        scanner, boot_id = await BlockingCalls().call("procfs", blocking)
    except CallTimeout as late:
        raise RuntimeFailure(f"{config.proc}: {late.strerror}") from late
    if config.filter.values:
        for hint in hints(config.filter, config.proc, all_rows=config.all):
            log(f"warning: {hint}")
    return scanner, (host_name(), boot_id)


def host_name() -> str:
    """Return the name of this machine."""
    return decode(os.fsencode(os.uname().nodename))


def table_and_event_sources(
    config: Config, procfs: ProcFS
) -> tuple[Sequence[TableSource], Sequence[EventSource]]:
    """Return the configured sources of tables and events. Raises RuntimeFailure."""
    descriptors = raise_descriptor_limit()
    netlink = None if config.source == "procfs" else _netlink(config, procfs, descriptors)
    return sources_of(procfs, netlink)


async def open_trace(config: Config, scanner: ProcessScanner) -> TraceEvents | None:
    """Return the source of trace events, None if it is switched off; ``off`` is the reason if it
    does not work and is not required. Raises RuntimeFailure."""
    if config.events == "off":
        return None
    from .kernel.trace.unavailable import TraceUnavailable
    from .snapshot.trace_events import TraceEvents

    trace = TraceEvents(scanner, udp=config.events_udp)
    try:
        await trace.open()
    except TraceUnavailable as error:
        if config.events == "on":
            raise
        trace.set_off(str(error))
    return trace


def _netlink(config: Config, procfs: ProcFS, descriptors: int) -> NetlinkClient | None:
    """Return the netlink source, with the descriptors that clients and files leave; None if it does
    not work and is not required. Raises RuntimeFailure."""
    is_required = config.source == "netlink"
    if procfs.own is not None:
        network = config.network
        clients = network.max_clients + network.max_handshakes if network.listen else 0
        free = descriptors - reserved_fds(descriptors) - RESERVED_DESCRIPTORS - clients
        client = NetlinkClient(
            procfs.own.netns,
            include_unowned=config.all,
            include_cgroups=not is_privileged(),
            subscribe_destroy=config.is_continuous,
            required=is_required,
            max_namespaces=max(0, free) // 2,
        )
        if not is_required or client.is_available():
            return client
    if is_required:
        raise RuntimeFailure(
            "sock_diag over netlink does not work on this machine; use --source procfs"
        )
    return None
