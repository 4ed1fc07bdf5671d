"""Application startup, wiring and shutdown: which sources are read, which publishers run.

A one-shot snapshot goes from the poller to standard output. Continuous polls go through a
``Follower`` to the feed, and from there to every publisher.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from .config import Config
from .errors import ConfigFailure, RuntimeFailure
from .kernel.netlink.client import NetlinkClient
from .kernel.procfs.forked_scan import ForkedScan
from .kernel.procfs.mount import ProcFS
from .kernel.procfs.scanner import ProcessScanner
from .kernel.users import is_privileged
from .log import LoopErrorReporter, capture_libraries, finish, log
from .model import Coverage
from .preflight import (
    RESERVED_DESCRIPTORS,
    NonJoiningExecutor,
    hints,
    raise_descriptor_limit,
    require_descriptors,
    warn,
)
from .publish.stdout import STDOUT, StdoutPublisher, publish
from .signals import handle_reload, handle_stop
from .snapshot.blocking import BlockingCalls, CallTimeout
from .snapshot.oneshot import take_snapshot
from .snapshot.poller import Poller
from .snapshot.refresh import reserved_fds
from .snapshot.table_sources import EventSource, TableSource, sources_of
from .stream.encoder import AgentInfo, Encoder, snapshot_chunks
from .text import decode

if TYPE_CHECKING:  # A one-shot snapshot does not load what only following takes.
    from .publish import Publisher
    from .service.handover import SavedState
    from .service.status import ServiceStatus
    from .serving import ConfiguredServer
    from .snapshot.trace_events import TraceEvents
    from .stream.feed import Feed

Machine = tuple[str, str | None]  # Host name and boot id.


def run(config: Config, scan: ForkedScan | None = None) -> None:
    """Do what is configured until it is done, a signal arrives or the reader of stdout leaves.

    ``scan`` is the scan of a one-shot snapshot, if it was started already. Raises RuntimeFailure,
    ConfigFailure and OSError.
    """
    try:
        require_descriptors()
        asyncio.run(_run(config, scan))
    except BaseExceptionGroup as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from group
    finally:
        finish()


async def _run(config: Config, scan: ForkedScan | None) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_default_executor(NonJoiningExecutor())
    loop.set_exception_handler(LoopErrorReporter())
    capture_libraries()
    handle_stop(loop, stop.set)
    if config.network.connect:
        await _print(_remote_feeds(config), stop)
    elif config.is_continuous:
        await _follow(config, stop)
    else:
        try:
            await _print(_snapshot(config, scan), stop)
        finally:
            if scan:
                scan.stop()


# What is printed without a feed.


async def _print(records: AsyncIterable[bytes], stop: asyncio.Event) -> None:
    """Print records until they end, the reader leaves or ``stop`` is set. Raises RuntimeFailure."""
    printing = asyncio.create_task(publish(records, STDOUT))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((printing, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    printing.cancel()
    with suppress(asyncio.CancelledError):
        await printing


def _remote_feeds(config: Config) -> AsyncIterator[bytes]:
    """Return the merged records of the remote agents. Raises ConfigFailure."""
    from .remote.client import follow_all, remote_agents
    from .secrets import client_tls, client_token

    urls = config.network.connect
    token = client_token(config.network)
    has_tls = any(url.startswith("wss:") for url in urls)
    tls = client_tls(config.network) if has_tls else None
    return follow_all(remote_agents(urls, config.filter, token, tls))


async def _snapshot(config: Config, scan: ForkedScan | None) -> AsyncIterator[bytes]:
    """Take one snapshot and yield its records. Raises RuntimeFailure."""
    scanner, machine = await _open_procfs(config)
    poller = Poller(scanner, *_sources(config, scanner.procfs), limits=config.limits)
    encoder = Encoder(AgentInfo(*machine, _new_epoch(), config.interval))
    now = time.time()
    try:
        async for part in take_snapshot(poller, scan, include_unowned=config.all):
            if isinstance(part, Coverage):
                warn(part)
                return
            for chunk in snapshot_chunks(encoder, part, config.filter, now):
                yield chunk
    except OSError as error:
        raise RuntimeFailure(f"cannot read procfs: {error.strerror}") from error


# Sources.


async def _open_procfs(config: Config) -> tuple[ProcessScanner, Machine]:
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
    return scanner, (decode(os.fsencode(os.uname().nodename)), boot_id)


def _sources(config: Config, procfs: ProcFS) -> tuple[Sequence[TableSource], Sequence[EventSource]]:
    """Return the configured sources of tables and events. Raises RuntimeFailure."""
    descriptors = raise_descriptor_limit()
    netlink = None if config.source == "procfs" else _netlink(config, procfs, descriptors)
    return sources_of(procfs, netlink)


async def _open_trace(config: Config, scanner: ProcessScanner) -> TraceEvents | None:
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


# What is published from a feed.


async def _follow(config: Config, stop: asyncio.Event) -> None:
    """Poll, and run every publisher. Raises RuntimeFailure and ConfigFailure."""
    scanner, machine = await _open_procfs(config)
    trace = await _open_trace(config, scanner)
    try:
        await _publish(config, stop, scanner, machine, trace)
    finally:
        if trace is not None:
            await trace.close()


async def _publish(
    config: Config,
    stop: asyncio.Event,
    scanner: ProcessScanner,
    machine: Machine,
    trace: TraceEvents | None,
) -> None:
    """Poll, and run every publisher. Raises RuntimeFailure and ConfigFailure."""
    from .follow import Follower, log_stats

    tables, events = _sources(config, scanner.procfs)
    passed, saved = _passed_by_systemd(machine) if config.network.listen else ({}, None)
    feed = _feed(config, machine, saved)
    server = None
    publishers: list[Publisher] = []
    if config.network.listen:
        from .serving import ConfiguredServer

        server = ConfiguredServer(config, feed, passed)
        publishers.append(server.server)
    if config.follow:
        publishers.append(StdoutPublisher(feed, config.filter))
    service = _service(config, feed, server)
    report = service.report_progress
    poller = Poller(
        scanner,
        tables,
        events,
        sweep=config.sweep,
        limits=config.limits,
        on_progress=report,
        trace=trace,
    )
    follower = Follower(poller, feed, saved=saved, on_progress=report, on_poll=service.report_poll)
    work = [follower.run(config.interval)]
    if config.stats is not None:
        work.append(log_stats(feed.stats, config.stats))
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(publisher.run()) for publisher in publishers]
        working = [group.create_task(coroutine) for coroutine in work]
        stopping = group.create_task(stop.wait())
        await asyncio.wait((*running, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (*working, stopping):
            task.cancel()
        feed.stop()
        service.report_stopping()
        for publisher in publishers:
            await publisher.stop()
        for task in running:
            task.cancel()
    service.store_state(follower.state(), machine)


def _feed(config: Config, machine: Machine, saved: SavedState | None) -> Feed:
    """Return a new feed, or one that continues a saved state."""
    from .snapshot.stats import PollStats
    from .stream.feed import HISTORY_BURST_SECONDS, Feed

    epoch = _new_epoch() if saved is None else saved.epoch
    agent = AgentInfo(*machine, epoch, config.interval)
    feed = Feed(agent, stats=PollStats(), history_burst=HISTORY_BURST_SECONDS)
    if saved is not None:
        feed.restore(saved.seq, saved.history())
    return feed


def _new_epoch() -> str:
    return os.urandom(8).hex()


def _service(config: Config, feed: Feed, server: ConfiguredServer | None) -> ServiceStatus:
    """Return the connection to systemd, which a server has; let SIGHUP reload the server."""
    from .service.sd_notify import Notifier
    from .service.status import ServiceStatus

    def subscriber_count() -> int:
        return 0 if server is None else server.registry.subscriber_count

    notifier = Notifier({} if server is None else os.environ)
    service = ServiceStatus(notifier, feed, subscriber_count, config.interval)
    if server is not None:
        handle_reload(asyncio.get_running_loop(), partial(_reload, server, service))
    return service


def _passed_by_systemd(machine: Machine) -> tuple[dict[str, list[int]], SavedState | None]:
    """Return the sockets that systemd passed, and the state that an earlier run saved."""
    from .service.handover import FD_NAME, load
    from .service.sd_notify import listen_fds

    passed = listen_fds(os.environ)
    saved = None
    for descriptor in passed.pop(FD_NAME, ()):
        saved = load(descriptor, machine)
        os.close(descriptor)
    return passed, saved


def _reload(server: ConfiguredServer, service: ServiceStatus) -> None:
    """Read the server's files again, and report the outcome on stderr and to systemd."""
    service.report_reloading()
    try:
        server.reload()
    except ConfigFailure as error:
        log(f"reload failed, the configuration is unchanged: {error}")
        service.report_reloaded(str(error))
    else:
        log("tokens, certificates and filters reloaded")
        service.report_reloaded()
