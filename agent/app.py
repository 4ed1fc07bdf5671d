"""Application startup, wiring and shutdown: which sources are read, which publishers run.

A one-shot snapshot goes from the poller to standard output. Continuous polls go through a
``Follower`` to the feed, and from there to every publisher.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from .config import Config
from .errors import RuntimeFailure
from .kernel.procfs.forked_scan import ForkedScan
from .kernel.procfs.scanner import ProcessScanner
from .log import LoopErrorReporter, capture_libraries, finish
from .model import Coverage, Holding
from .output import choose_format, is_terminal, view_options
from .preflight import (
    NonJoiningExecutor,
    require_descriptors,
    warn,
)
from .publish.stdout import STDOUT, StdoutPublisher, publish
from .signals import handle_stop
from .snapshot.oneshot import take_snapshot
from .snapshot.poller import Poller
from .sources import Machine, host_name, open_procfs, open_trace, table_and_event_sources
from .stream.encoder import AgentInfo, Encoder, snapshot_chunks

if TYPE_CHECKING:  # A one-shot snapshot does not load what only following takes.
    from .moments import Output
    from .publish import Publisher
    from .publish.terminal.publisher import MatchPublisher
    from .service.handover import SavedState
    from .snapshot.trace_events import TraceEvents
    from .stream.feed import Feed

T = TypeVar("T")


def run(config: Config, scan: ForkedScan | None = None) -> bool:
    """Do what is configured until it is done, a signal arrives or the reader of stdout leaves.

    Return whether a socket passed the filter, where ``config.view.answers``. ``scan`` is the scan
    of a one-shot snapshot, if it was started already. Raises UsageError, RuntimeFailure,
    ConfigFailure and OSError.
    """
    try:
        require_descriptors()
        return asyncio.run(_run(config, scan))
    except BaseExceptionGroup as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from group
    finally:
        finish()


async def _run(config: Config, scan: ForkedScan | None) -> bool:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_default_executor(NonJoiningExecutor())
    loop.set_exception_handler(LoopErrorReporter())
    capture_libraries()
    is_local_page = config.network.local_page is not None
    view = config.view
    handle_stop(loop, stop.set, hangup=is_local_page or view.top)
    if view.timeout is not None:
        loop.call_later(view.timeout, stop.set)
    try:
        if is_local_page and view.read is not None:
            await _serve_recording(config, view.read, stop)
            return False
        if config.fleet.record is not None:
            from .record import record

            await _until(stop, record(config))
            return False
        if view.top and not config.follow:
            from .topping import screen

            await _until(stop, screen(config).run())
            return False
        output = choose_format(config, os.environ, is_terminal=is_terminal())
        if config.network.connect and config.network.listen:
            from .relaying import relay

            return await relay(config, output, stop)
        if config.network.connect and config.network.publish:
            from .publishing import publish_remote

            await publish_remote(config, stop)
            return False
        if config.is_continuous and not config.network.connect:
            return await _follow(config, output, stop)
        if output == "ndjson" and not view.answers and view.read is None:
            remote = bool(config.network.connect)
            records = _remote_feeds(config, output) if remote else _ndjson(config, scan)
            await _print(records, stop)
            return False
        printed = _output(config, output, scan)
        await _print(printed, stop)
        return printed.matched
    finally:
        if scan:
            scan.stop()


# What is printed without a feed.


async def _print(records: AsyncIterable[bytes], stop: asyncio.Event) -> None:
    """Print records until they end, the reader leaves or ``stop`` is set. Raises RuntimeFailure."""
    await _until(stop, publish(records, STDOUT))


async def _until(stop: asyncio.Event, work: Coroutine[object, object, T]) -> T | None:
    """Return the result of a coroutine; None if ``stop`` is set before it ends."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    working.cancel()
    with suppress(asyncio.CancelledError):
        return await working
    return None


async def _serve_recording(config: Config, path: str, stop: asyncio.Event) -> None:
    """Serve the page with a recording until ``stop`` is set. Raises RuntimeFailure."""
    from .publish.http.recordings import recording_page
    from .serving import recording_server
    from .stream.feed import Feed

    recording = await _until(stop, asyncio.to_thread(recording_page, path))
    if recording is None:
        return
    feed = Feed(AgentInfo(host_name(), None, "", config.interval))  # Which stays empty.
    server = recording_server(config.network, feed, recording)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.run())
        await stop.wait()
        feed.stop()
        await server.stop()
        running.cancel()


def _remote_feeds(config: Config, output: str) -> AsyncIterator[bytes]:
    """Return the merged records of the remote agents. Raises ConfigFailure and UsageError."""
    from .remotes import remote_records

    # In the event log, repeated snapshots have no line.
    return remote_records(config, checkpoints=output == "ndjson")


async def _ndjson(config: Config, scan: ForkedScan | None) -> AsyncIterator[bytes]:
    """Take one snapshot and yield its records. Raises RuntimeFailure."""
    encoder = Encoder(AgentInfo(host_name(), None, "", config.interval))
    now = time.time()
    async for part in _parts(config, scan):
        if isinstance(part, Coverage):
            warn(part)
            return
        for chunk in snapshot_chunks(encoder, part, config.filter, now):
            yield chunk


async def _parts(
    config: Config, scan: ForkedScan | None
) -> AsyncIterator[Iterable[Holding] | Coverage]:
    """Take one snapshot and yield its parts. Raises RuntimeFailure."""
    scanner, _machine = await open_procfs(config)
    poller = Poller(scanner, *table_and_event_sources(config, scanner.procfs), limits=config.limits)
    try:
        async for part in take_snapshot(poller, scan, include_unowned=config.all):
            yield part
    except OSError as error:
        raise RuntimeFailure(f"cannot read procfs: {error.strerror}") from error


def _output(config: Config, output: str, scan: ForkedScan | None) -> Output:
    """Return what is printed other than NDJSON of this machine. Raises UsageError."""
    options = view_options(config, output, os.environ)
    if config.view.read is not None:
        from .replay import RecordingOutput

        return RecordingOutput(config.view.read, config, output, options)
    if config.network.connect:
        from .outputs import RemoteOutput

        return RemoteOutput(_remote_feeds(config, output), config, output, options)
    from .moments import SnapshotOutput

    return SnapshotOutput(_parts(config, scan), host_name(), config, output, options)


# What is published from a feed.


async def _follow(config: Config, output: str, stop: asyncio.Event) -> bool:
    """Poll, and run every publisher; return whether a socket passed the filter. Raises
    RuntimeFailure and ConfigFailure."""
    opened = await open_procfs(config)
    trace = await open_trace(config, opened[0])
    try:
        return await _publish(config, output, stop, opened, trace)
    finally:
        if trace is not None:
            await trace.close()


async def _publish(
    config: Config,
    output: str,
    stop: asyncio.Event,
    opened: tuple[ProcessScanner, Machine],
    trace: TraceEvents | None,
) -> bool:
    """Poll, and run every publisher; return whether a socket passed the filter. Raises
    RuntimeFailure and ConfigFailure."""
    scanner, machine = opened
    from .follow import Follower, log_stats
    from .running import run_publishers, service_of, subscribers_of
    from .service.status import describe_agent

    tables, events = table_and_event_sources(config, scanner.procfs)
    passed, saved = _passed_by_systemd(machine) if config.network.listen else ({}, None)
    feed = _feed(config, machine, saved)
    server = None
    publishers: list[Publisher] = []
    if config.network.listen:
        from .serving import ConfiguredServer, agent_pages

        pages = partial(agent_pages, feed, config.interval)
        server = ConfiguredServer(config, feed, passed, pages)
        publishers.append(server.server)
    if config.network.publish:
        from .publishing import feed_publisher

        publishers.append(feed_publisher(config, feed))
    match = _match(config, feed)
    if match is not None:
        publishers.append(match)
    if config.follow and not (config.view.quiet or config.view.top):
        publishers.append(_printer(config, output, feed))
    service = service_of(partial(describe_agent, feed, subscribers_of(server)), config, server)
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
    if config.view.top:
        from .topping import feed_screen

        publishers.append(feed_screen(config, feed, poller))
    follower = Follower(poller, feed, saved=saved, on_progress=report, on_poll=service.report_poll)
    work = [follower.run(config.interval)]
    if config.stats is not None:
        work.append(log_stats(feed.stats, config.stats))
    await run_publishers(publishers, work, feed, service, stop)
    service.store_state(follower.state(), machine)
    return match is not None and match.matched


def _match(config: Config, feed: Feed) -> MatchPublisher | None:
    """Return what finds out whether a socket passes the filter, if that is asked."""
    if not config.view.answers:
        return None
    from .publish.terminal.publisher import MatchPublisher

    chosen = config.filter.of_host(host_name())
    return MatchPublisher(feed, chosen, once=config.view.quiet)


def _printer(config: Config, output: str, feed: Feed) -> Publisher:
    """Return what prints the feed on standard output."""
    if output == "ndjson":
        return StdoutPublisher(feed, config.filter, checkpoint=config.checkpoint)
    from .outputs import stream_log
    from .publish.terminal.publisher import LogPublisher
    from .publish.terminal.stream_log import FOLLOWING

    options = view_options(config, output, os.environ)
    return LogPublisher(feed, host_name(), stream_log(config, options, FOLLOWING))


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
