"""Starts the rooms, connects them, and ends them: signals, shutdown, and the one TaskGroup.

It knows no formats: what a poll shows goes through tracker and feed to the publishers.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from .config import Config
from .errors import ConfigFailure, RuntimeFailure
from .kernel.capabilities import is_privileged
from .kernel.netlink.client import NetlinkClient
from .kernel.procfs.forked_scan import ForkedScan
from .kernel.procfs.mount import ProcFS
from .kernel.procfs.scanner import ProcessScanner
from .log import GRACE_SECONDS, LoopErrorReporter, capture_libraries, finish, log
from .model import Coverage
from .preflight import warn
from .publish.stdout import STDOUT, StdoutPublisher, publish
from .snapshot.blocking import MAX_HUNG, THREADS, BlockingCalls, CallTimeout
from .snapshot.oneshot import take_snapshot
from .snapshot.poller import Poller
from .snapshot.refresh import reserved_fds
from .snapshot.table_sources import sources_of
from .stream.encoder import AgentInfo, Encoder
from .stream.lines import snapshot_chunks
from .text import decode

if TYPE_CHECKING:
    from .follow import Follower
    from .publish.websocket.server import Server
    from .service.handover import SavedState
    from .service.status import ServiceStatus

# What an agent needs at the least: the event loop's, and a few to read with.
DESCRIPTORS = 12
# Signals that are taken note of at a time, a byte each.
SIGNALS_AT_ONCE = 4096
# Threads for what else blocks now and then: looking up host names.
OTHER_THREADS = 4
# What is left to reading when sockets are opened in other namespaces, two in each.
RESERVED_DESCRIPTORS = 64


class NonJoiningExecutor(ThreadPoolExecutor):
    """An executor that nobody waits for: what a foreign file system keeps waiting may wait."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Let go of the threads."""
        super().shutdown(wait=False, cancel_futures=True)


def run(config: Config, walk: ForkedScan | None = None) -> None:
    """Do what is configured until it is done, or SIGINT, SIGTERM or a closed pipe ends it.

    ``walk`` is the walk of a one-shot snapshot, if it was started already. Raises RuntimeFailure.
    """
    try:
        _want(DESCRIPTORS)
        asyncio.run(_connected(config) if config.network.connect else _main(config, walk))
    except BaseExceptionGroup as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from group
    finally:
        finish()


def _want(descriptors: int) -> None:
    """Make sure that so many can be had: asyncio is not tidy where they cannot. Raises OSError."""
    had: list[int] = []
    try:
        while len(had) < descriptors:
            had += os.pipe()
    finally:
        for descriptor in had:
            os.close(descriptor)


def _prepared() -> asyncio.Event:
    """Prepare the event loop; what SIGINT and SIGTERM set.

    They are handled to the very end: the event loop's own handlers would go before it does.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.set_default_executor(NonJoiningExecutor(THREADS + MAX_HUNG + OTHER_THREADS))
    loop.set_exception_handler(LoopErrorReporter())
    capture_libraries()

    def stopped(_number: int, _frame: object) -> None:
        with suppress(RuntimeError):  # The loop is closed: it stops already.
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopped)
    _woken_by_signals(loop)
    return stop


def _woken_by_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Have signals wake the event loop. One that comes just as it falls asleep, or to another
    thread, would be handled only when something else wakes it."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    loop.add_reader(reading, os.read, reading, SIGNALS_AT_ONCE)


async def _connected(config: Config) -> None:
    """Print what other agents tell."""
    from .remote.client import follow_all
    from .secrets import remotes

    stop = _prepared()
    printing = asyncio.create_task(publish(follow_all(remotes(config)), STDOUT))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((printing, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    printing.cancel()
    with suppress(asyncio.CancelledError):
        await printing


async def _main(config: Config, walk: ForkedScan | None) -> None:
    stop = _prepared()
    descriptors = _raised_limit()
    try:
        walker, boot_id = await BlockingCalls().call("procfs", _opened, config)
    except CallTimeout as late:
        if walk:
            walk.stop()
        raise RuntimeFailure(f"{config.proc}: {late.strerror}") from late
    procfs = walker.procfs
    machine = (decode(os.fsencode(os.uname().nodename)), boot_id)
    handed, left = _handed(machine) if config.network.listen else ({}, None)
    epoch = os.urandom(8).hex() if left is None else left.epoch
    agent = AgentInfo(*machine, epoch, config.interval)
    if config.filter.values:
        from .preflight import hints  # Only here: most ask for everything.

        for hint in hints(config.filter, config.proc, all_rows=config.all):
            log(f"warning: {hint}")
    netlink = _netlink(config, procfs, descriptors)
    progress: list[Callable[[], None]] = []

    def progressed() -> None:
        for call in progress:
            call()

    poller = Poller(
        walker,
        *sources_of(procfs, netlink),
        sweep=config.sweep,
        limits=config.limits,
        on_progress=progressed,
    )
    server: Server | None = None
    service: ServiceStatus | None = None
    async with asyncio.TaskGroup() as group:
        if config.polls:
            # Only here: what following takes need not be loaded for a snapshot.
            from .follow import Follower

            following = Follower(poller, agent, config, left)
            progress.append(following.progress)
            feed, tasks = following.feed, [group.create_task(work) for work in following.work()]
            if config.network.listen:
                server, service = _serve(config, following, handed)
                tasks.append(group.create_task(server.run()))
            printing = group.create_task(
                StdoutPublisher(feed, config.filter).run()
                if config.follow
                else _until_stopped(stop)
            )
        else:
            feed, tasks = None, []
            printing = group.create_task(
                publish(_snapshot(poller, walk, config, Encoder(agent)), STDOUT)
            )
        stopping = group.create_task(stop.wait())
        await asyncio.wait((printing, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        if feed is not None:
            feed.stop()
            if server is not None and service is not None:
                service.report_stopping()
                await server.stop()
                service.store_state(following.left(), machine)
            await asyncio.wait((printing,), timeout=GRACE_SECONDS)
        printing.cancel()
        stopping.cancel()


def _opened(config: Config) -> tuple[ProcessScanner, str | None]:
    """Open the procfs; with the id of the boot. Blocking."""
    procfs = ProcFS(config.proc)
    return ProcessScanner(procfs, cmdline=config.cmdline), procfs.boot_id()


def _raised_limit() -> int:
    """Let us have as many descriptors as the system allows; how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


def _netlink(config: Config, procfs: ProcFS, descriptors: int) -> NetlinkClient | None:
    """The netlink source, where it is wanted and works, with what subscribers leave it of so many
    descriptors. Raises RuntimeFailure."""
    network = config.network
    clients = network.max_clients + network.max_handshakes if network.listen else 0
    if config.source == "procfs":
        return None
    reader = (
        None
        if procfs.own is None
        else NetlinkClient(
            procfs.own.netns,
            include_unowned=config.all,
            include_cgroups=not is_privileged(),
            subscribe_destroy=config.polls,
            required=config.source == "netlink",
            max_namespaces=max(
                0, descriptors - reserved_fds(descriptors) - RESERVED_DESCRIPTORS - clients
            )
            // 2,
        )
    )
    if reader is not None and (config.source == "auto" or reader.is_available()):
        return reader
    if config.source == "netlink":
        raise RuntimeFailure("sock_diag over netlink does not work here; try --source procfs")
    return None


async def _snapshot(
    poller: Poller, walk: ForkedScan | None, config: Config, encoder: Encoder
) -> AsyncIterator[bytes]:
    """The one-shot snapshot."""
    now = time.time()
    try:
        async for part in take_snapshot(poller, walk, include_unowned=config.all):
            if isinstance(part, Coverage):
                warn(part)
                break
            for chunk in snapshot_chunks(encoder, part, config.filter, now):
                yield chunk
    except OSError as error:
        raise RuntimeFailure(f"there is no procfs: {error.strerror}") from error
    finally:
        if walk:
            walk.stop()


def _handed(
    machine: tuple[str, str | None],
) -> tuple[dict[str, list[int]], SavedState | None]:
    """What systemd hands over: descriptors by name, and what an earlier run left."""
    from .service.handover import FD_NAME, load
    from .service.sd_notify import listen_fds

    handed = listen_fds(os.environ)
    left = None
    for descriptor in handed.pop(FD_NAME, ()):
        left = load(descriptor, machine)
        os.close(descriptor)
    return handed, left


def _serve(
    config: Config, following: Follower, handed: dict[str, list[int]]
) -> tuple[Server, ServiceStatus]:
    """Begin to serve subscribers, and to tell systemd of it where that started us."""
    from .secrets import Serving
    from .service.sd_notify import Notifier
    from .service.status import ServiceStatus

    serving = Serving(config, following.feed, handed)
    service = ServiceStatus(
        Notifier(os.environ),
        following.feed,
        lambda: serving.registry.subscriber_count,
        config.interval,
    )
    following.polled, following.progressed = service.report_poll, service.report_progress

    def reload() -> None:
        service.report_reloading()
        try:
            serving.reload()
        except ConfigFailure as error:
            log(f"nothing is changed: {error}")
            service.report_reloaded(str(error))
        else:
            log("tokens, certificates and filters are read again")
            service.report_reloaded()

    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGHUP, lambda _number, _frame: loop.call_soon_threadsafe(reload))
    return serving.server, service


async def _until_stopped(stop: asyncio.Event) -> None:
    await stop.wait()
