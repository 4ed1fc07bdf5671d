"""The kernel's trace events as a source of connections: where they come from, and who reads them.

An agent that may create a trace instance has one of its own, which it removes when it stops.
Otherwise it reads the one that ``sockagent events enable`` created.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

from ..bounded import drop_oldest
from ..kernel.procfs.scanner import ProcessScanner
from ..kernel.procfs.threads import find_process, is_initial_pid_namespace, list_threads
from ..kernel.trace import instance
from ..kernel.trace.connections import ConnectionReport
from ..kernel.trace.events import TraceCounts
from ..kernel.trace.formats import UnknownFormat, parse_event_format, parse_header_page
from ..kernel.trace.pages import PageDecoder
from ..kernel.trace.reader import TraceReader
from ..kernel.trace.reader_lock import lock_reader
from ..kernel.trace.routes import ProcessId, Sender
from ..kernel.trace.tasks import Task, TaskTable
from ..kernel.trace.udp_events import read_udp_formats
from ..kernel.trace.unavailable import TraceUnavailable
from ..model import Process
from .blocking import BlockingCalls, CallTimeout, place_of_process
from .udp_switch import UdpSwitch

# Seconds between two checks whether the instance still records; 40 µs each, in a thread.
CHECK_SECONDS = 2.0
# Seconds between two attempts of an agent that could not read events when it started.
RETRY_SECONDS = 60.0
# Processes that were read from procfs when they connected, 500 bytes each.
MAX_FACTS = 5000
# Processes that wait to be read; short-lived ones beyond that are known from events alone.
MAX_LOOKUPS = 50
# How long connections wait for the reading of their processes: 10 times what it usually takes.
LOOKUP_SECONDS = 0.01
OTHER_NAMESPACE = (
    "no kernel events: their process ids are not those of this procfs, which is of another pid "
    "namespace; run the agent on the host, or give it the procfs of the host with --proc"
)
STOPPED = "no kernel events: the trace instance was switched off or removed; setting it up again"


class _Opened(NamedTuple):
    """An instance that is read. ``created``: it is removed when the agent stops.

    ``udp_decoder`` decodes UDP events too, None if they are not asked for, or if they cannot be
    decoded; ``udp_off`` is why they are off, None if they are on or not asked for.
    """

    root: str
    name: str
    path: str
    created: bool
    lock: int
    descriptors: tuple[int, ...]
    page_size: int
    decoder: PageDecoder
    udp_decoder: PageDecoder | None
    udp_off: str | None


class TraceEvents:
    """Trace events, from ``open`` to ``close``. Both and ``check`` are called in the event loop.

    ``udp``: also read the events that show which process sends datagrams.
    """

    def __init__(self, scanner: ProcessScanner, *, udp: bool = False) -> None:
        self._wants_udp = udp
        self._udp: UdpSwitch | None = None
        self._scanner = scanner
        self._root = scanner.procfs.root
        self._calls = BlockingCalls()
        self._opened: _Opened | None = None
        self._reader: TraceReader | None = None
        self._tasks = TaskTable(lambda tid: find_process(self._root, tid))
        self._facts: dict[int, Process] = {}
        self._to_look_up: set[int] = set()
        self._looking_up: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._counts_before = TraceCounts()  # Of earlier readers.
        self._checked_at = 0.0
        self._switching_off: asyncio.Task[None] | None = None
        self._losses = 0  # Up to the newest reading of all threads.
        self._was_open = False  # What could be opened once is tried again.
        self.off: str | None = None  # Why events are not read, as a sentence.

    # Opening, checking and closing.

    async def open(self) -> None:
        """Set up or find the instance, and begin to read it. Raises TraceUnavailable."""
        self._checked_at = asyncio.get_running_loop().time()
        try:
            opened = self._opened = await self._calls.call("trace", self._open)
            threads = await self._calls.call("threads", list_threads, self._root)
        except OSError as error:
            await self.close()
            raise TraceUnavailable(f"no kernel events: {error.strerror}") from error
        self._tasks.reset(threads)
        self._facts.clear()
        self._reader = TraceReader(
            opened.descriptors,
            opened.page_size,
            opened.udp_decoder or opened.decoder,
            self._tasks,
            on_actors=self._on_actors,
            on_report=self._news.set,
            on_flood=self._on_flood,
        )
        self._reader.start()
        self._udp = UdpSwitch(opened.path, is_own=opened.created) if self._wants_udp else None
        if self._udp is not None:
            self._udp.set_off(opened.udp_off)
        self.off, self._was_open = None, True

    def _open(self) -> _Opened:
        """Open the files of an instance. Blocking; raises TraceUnavailable."""
        if not is_initial_pid_namespace(self._root):
            raise TraceUnavailable(OTHER_NAMESPACE)
        root = instance.require_tracefs()
        instance.remove_abandoned(root, self._root)
        name, created = f"{instance.SERVICE_INSTANCE}-{os.getpid()}", True
        try:
            instance.enable(root, name, instance.BUFFER_KIB)
        except TraceUnavailable:
            path = instance.path_of(root, instance.SERVICE_INSTANCE)
            if not instance.is_intact(path):
                raise
            name, created = instance.SERVICE_INSTANCE, False
        path = instance.path_of(root, name)
        lock, descriptors = -1, list[int]()
        try:
            lock = lock_reader(path)
            header, texts = instance.read_formats(path)
            layout = parse_header_page(header)
            formats = {event: parse_event_format(event, text) for event, text in texts.items()}
            decoder, udp_decoder, udp_off = PageDecoder(layout, formats), None, None
            if self._wants_udp:
                try:
                    udp_decoder = PageDecoder(layout, formats | read_udp_formats(path))
                    udp_off = UdpSwitch(path, is_own=created).set_up()
                except UnknownFormat as error:
                    udp_off = f"no UDP events: {error}"
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            for file in instance.trace_files(path):
                descriptors.append(os.open(file, flags))
        except (OSError, UnknownFormat, TraceUnavailable) as error:
            _release([*descriptors, lock], root, name if created else None)
            if isinstance(error, TraceUnavailable):
                raise
            raise TraceUnavailable(f"no kernel events: {error}") from error
        return _Opened(
            root, name, path, created, lock, tuple(descriptors), layout.page_size, decoder,
            udp_decoder, udp_off,
        )  # fmt: skip

    def set_off(self, reason: str) -> None:
        """Record why events are not read."""
        self.off = reason

    async def check(self) -> None:
        """Set the instance up again if it does not record any more, every CHECK_SECONDS at most; or
        for the first time, every RETRY_SECONDS."""
        now = asyncio.get_running_loop().time()
        pause = CHECK_SECONDS if self._was_open else RETRY_SECONDS
        if now - self._checked_at < pause:
            return
        self._checked_at = now
        self._calls.forget_returned()
        opened, reader = self._opened, self._reader
        if opened is not None and reader is not None:
            with suppress(CallTimeout):
                is_intact = await self._calls.call("trace", instance.is_intact, opened.path)
                if is_intact and reader.failure is None:
                    await self._rescan()
                    await self._check_udp(opened, reader, now)
                    return
            self.off = STOPPED
            await self.close()
        try:
            await self.open()
        except TraceUnavailable as error:
            self.off = str(error)

    async def _check_udp(self, opened: _Opened, reader: TraceReader, now: float) -> None:
        """Switch UDP events on if they are off: again, or because they were not there before."""
        udp = self._udp
        if udp is None or opened.udp_decoder is None or udp.is_flooded(now):
            return
        if udp.retry():
            reader.decode_with(opened.udp_decoder)
            reader.routes.resume()
        udp.set_off(await self._calls.call("trace", udp.set_up))

    def _on_flood(self) -> None:
        """Read no UDP events for some time."""
        opened, reader, udp = self._opened, self._reader, self._udp
        if opened is not None and reader is not None and udp is not None:
            udp.note_flood(asyncio.get_running_loop().time())
            reader.decode_with(opened.decoder)
            self._switching_off = asyncio.create_task(self._switch_off(udp))

    async def _switch_off(self, udp: UdpSwitch) -> None:
        with suppress(CallTimeout):
            await self._calls.call("udp", udp.switch_off)

    async def _rescan(self) -> None:
        """Read all threads from procfs if events were lost since that was done last."""
        losses = self.counts.losses
        if losses != self._losses:
            with suppress(CallTimeout, OSError):
                self._tasks.reset(await self._calls.call("threads", list_threads, self._root))
                self._facts.clear()
                self._losses = losses

    async def close(self) -> None:
        """Stop reading, and remove an instance of the agent's own."""
        if self._looking_up is not None:
            self._looking_up.cancel()
            self._looking_up = None
        if self._reader is not None:
            self._reader.stop()
            self._counts_before = self.counts._replace(losses=self.counts.losses + 1)
            self._reader = None
        if self._opened is not None:
            opened, self._opened = self._opened, None
            with suppress(CallTimeout):
                own = opened.name if opened.created else None
                files = [*opened.descriptors, opened.lock]
                await self._calls.call("trace", _release, files, opened.root, own)

    # What the events show.

    @property
    def is_reading(self) -> bool:
        """Return whether events are read."""
        return self._reader is not None and self._reader.failure is None

    @property
    def counts(self) -> TraceCounts:
        """Return the counts since the start."""
        if self._reader is None:
            return self._counts_before
        return TraceCounts(*map(sum, zip(self._counts_before, self._reader.counts, strict=True)))

    def take(self) -> ConnectionReport:
        """Return what happened since the last call."""
        self._news.clear()
        return ConnectionReport((), (), 0) if self._reader is None else self._reader.take()

    @property
    def has_senders(self) -> bool:
        """Return whether UDP events are read."""
        return self.is_reading and self._udp is not None and self._udp.is_on

    def senders_of(self, port: int) -> Sequence[Sender]:
        """Return the processes that sent datagrams from a port, and are remembered."""
        return () if self._reader is None else self._reader.routes.senders_of(port)

    def forget_senders(self, port: int, processes: Collection[ProcessId]) -> None:
        """Forget what some of them sent."""
        if self._reader is not None:
            self._reader.routes.forget(port, processes)

    def missing(self) -> list[str]:
        """Return a sentence if UDP events are asked for, and only those of TCP are read."""
        reason = self._udp.off if self._udp is not None and self.is_reading else None
        return [] if reason is None else [reason]

    async def wait(self, seconds: float) -> bool:
        """Wait for news, at most so many seconds; return whether there are some."""
        if not self._news.is_set() and seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()
        return self._news.is_set()

    def ancestors_of(self, task: Task) -> Sequence[Task]:
        """Return the parent of a process, its parent, and so on, as far as they are known."""
        return self._tasks.ancestors(task)

    # Processes that live so briefly that only a reading at once shows them.

    def facts_of(self, pid: int) -> Process | None:
        """Return a process as procfs showed it when it connected."""
        return self._facts.get(pid)

    async def wait_for_facts(self) -> None:
        """Wait a moment for processes that are being read."""
        if self._looking_up is not None and not self._looking_up.done():
            await asyncio.wait((self._looking_up,), timeout=LOOKUP_SECONDS)

    def _on_actors(self, tids: Sequence[int]) -> None:
        """Read the processes of threads that begin or end a connection, and their parents, whose
        program and cgroup they may have; unless too many wait already."""
        tasks = [task for tid in set(tids) if (task := self._tasks.find(tid)) is not None]
        pids = {pid for task in tasks for pid in (task.pid, task.ppid) if pid}
        new = {pid for pid in pids if self._is_new(pid)} - self._to_look_up
        if not new or len(self._to_look_up) + len(new) > MAX_LOOKUPS:
            return
        self._to_look_up |= new
        if self._looking_up is None or self._looking_up.done():
            self._looking_up = asyncio.create_task(self._look_up())

    def _is_new(self, pid: int) -> bool:
        """Return whether a process has not been read since it began or executed a program."""
        facts, task = self._facts.get(pid), self._tasks.find(pid)
        return task is None or facts is None or task.comm not in (None, facts.comm)

    async def _look_up(self) -> None:
        while self._to_look_up:
            pids, self._to_look_up = list(self._to_look_up), set()
            with suppress(CallTimeout):
                facts = await self._calls.batch(self._scanner.facts, pids, place_of_process)
                for pid, process in facts.items():
                    self._facts.pop(pid, None)
                    self._facts[pid] = process
                drop_oldest(self._facts, MAX_FACTS)
                # Of a process that has ended its parent shows the program and the cgroup.
                ended = (self._tasks.find(pid) for pid in pids if pid not in facts)
                parents = {task.ppid for task in ended if task is not None and task.ppid}
                self._to_look_up |= parents - self._facts.keys() - set(pids)


def _release(descriptors: Sequence[int], root: str, own: str | None) -> None:
    """Close the files of an instance, and remove the agent's own one, if it has one. Blocking."""
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
    if own is not None:
        with suppress(TraceUnavailable):
            instance.disable(root, own)
