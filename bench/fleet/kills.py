"""Processes of a fleet under churn that are killed at random, and what its consumers recorded."""

from __future__ import annotations

import asyncio
import heapq
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.broker import Broker, Connection

from ..agents import ROOT, agent_at
from .check import Outcome, Truth, by_host, check, last_change, whole_lines
from .host import final_file, truth_files
from .plan import BROKER, Event, Fault, Wanted, plan, summary
from .process import Process

# Snapshots are repeated often, so that many of them are cut short.
CHECKPOINT_SECONDS = 5
# The folds are equal so many seconds after the last change.
QUIET_SECONDS = 5.0
# When the bench gives up waiting for them.
_MAX_QUIET_SECONDS = 60.0
_START_SECONDS = 60.0
# Where the last change of a host is looked for: behind it there may be a snapshot of each host.
_TAIL_BYTES = 8 * 1024 * 1024
_WRITE_SECONDS, _LOOK_SECONDS = 1.5, 0.0005

# The records of each host, by consumer.
Recorded = Mapping[str, Mapping[str, Sequence[bytes]]]
# Does something, and returns what follows after how many seconds.
Action = Callable[[], "tuple[float, Action] | None"]


class Size(NamedTuple):
    """What runs: hosts with so many changes a second each, and consumers."""

    hosts: int
    consumers: int
    rate: float


class Scenario(NamedTuple):
    """How long a fleet runs, and what is done to it."""

    seconds: float
    wanted: Wanted
    size: Size = Size(hosts=3, consumers=2, rate=450.0)


LONG = Scenario(130.0, Wanted(kills=26, restarts=4))
SHORT = Scenario(30.0, Wanted(kills=6, restarts=1))


class Report(NamedTuple):
    """The outcome of each host at each consumer; how long after the last change the consumers had
    it, None: not all; ``problems`` of the processes."""

    outcomes: list[tuple[str, str, Outcome]]
    quiet: float | None
    problems: list[str]

    @property
    def is_exact(self) -> bool:
        """Whether the consumers had all in the end, and nothing twice."""
        are_right = all(one.is_right for _, _, one in self.outcomes)
        return self.quiet is not None and not self.problems and are_right

    @property
    def is_in_time(self) -> bool:
        """Whether they had it within QUIET_SECONDS."""
        return self.quiet is not None and self.quiet <= QUIET_SECONDS


class Fleet:
    """The processes, all of which run."""

    def __init__(self, directory: Path, size: Size, nats_server: str, stack: ExitStack) -> None:
        self._directory = directory
        self.hosts = [f"host-{number}" for number in range(1, size.hosts + 1)]
        self.consumers = [f"consumer-{number}" for number in range(1, size.consumers + 1)]
        self.broker = Broker(directory, program=nats_server)
        stack.callback(self.broker.stop)
        asyncio.run(_make_stream(self.broker.url))
        self.agents = {host: self._agent(host, size.rate) for host in self.hosts}
        self.publishers = {f"{host}-publisher": self._publisher(host) for host in self.hosts}
        self.recorders = {name: self._recorder(name) for name in self.consumers}
        self.processes = {**self.agents, **self.publishers, **self.recorders}
        for process in self.processes.values():
            stack.callback(process.kill)
            process.start()

    @property
    def kinds(self) -> dict[str, list[str]]:
        """The names of the processes by kind."""
        return {
            "agent": list(self.agents), "publisher": list(self.publishers),
            BROKER: [BROKER], "consumer": list(self.recorders),
        }  # fmt: skip

    def _agent(self, host: str, rate: float) -> Process:
        directory = self._directory / host
        (directory / "truth").mkdir(parents=True)
        argv = (sys.executable, "-m", "bench.fleet.host", host, str(directory), str(rate))
        return Process(argv, self._directory / f"{host}.log")

    def _publisher(self, host: str) -> Process:
        return self._sockagent(
            f"{host}-publisher", "--connect", f"unix:{self._directory / host / 'socket'}",
            "--publish", self.broker.url, "--checkpoint", str(CHECKPOINT_SECONDS),
        )  # fmt: skip

    def _recorder(self, name: str) -> Process:
        records = str(self._directory / name)
        return self._sockagent(
            name, "--connect", self.broker.url, "--since", "start", "--record", records
        )

    def _sockagent(self, name: str, *arguments: str) -> Process:
        argv = agent_at(ROOT, "this").command(*arguments)
        return Process(argv, self._directory / f"{name}.log")

    def wait_for_start(self) -> None:
        """Wait until each consumer records each host. Raises TimeoutError."""
        end = time.monotonic() + _START_SECONDS
        wanted = [f'"host":"{host}"'.encode() for host in self.hosts]
        while not all(
            all(host in content for host in wanted) for content in map(self.tail, self.consumers)
        ):
            if time.monotonic() > end:
                logs = "\n".join(process.log() for process in self.processes.values())
                raise TimeoutError(f"the consumers do not record all hosts\n{logs}")
            time.sleep(0.1)

    def files(self, consumer: str) -> list[Path]:
        """Return the files of a consumer, the oldest first."""
        return sorted((self._directory / consumer).glob("*.ndjson"))

    def lines(self, consumer: str) -> Iterator[bytes]:
        """Yield all that a consumer has recorded."""
        for path in self.files(consumer):
            yield from whole_lines(path.read_bytes())

    def tail(self, consumer: str) -> bytes:
        """Return the end of what a consumer has recorded."""
        content = b""
        for path in self.files(consumer)[-2:]:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                content += file.read()
        return content

    def wait_for_write(self, consumer: str) -> None:
        """Wait until a consumer begins to write, which it does once a second: a kill is to come
        before its position is stored."""
        end, before = time.monotonic() + _WRITE_SECONDS, self._size(consumer)
        while self._size(consumer) == before and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)

    def _size(self, consumer: str) -> int:
        return sum(path.stat().st_size for path in self.files(consumer))

    def truth(self, host: str) -> Truth:
        """Return the truth of a host, once there are no more changes."""
        directory = self._directory / host
        runs = [whole_lines(path.read_bytes()) for path in truth_files(directory)]
        return Truth(runs, whole_lines(final_file(directory).read_bytes()))

    def last_change(self, host: str) -> bytes:
        """Return the last change of a host, once there are no more."""
        for path in reversed(truth_files(self._directory / host)):
            line = last_change(whole_lines(path.read_bytes()))
            if line is not None:
                return line
        raise ValueError(f"{host} has made no change")

    def end_changes(self) -> float:
        """End the changes of all hosts; return when they had ended, in monotonic seconds."""
        for process in self.agents.values():
            process.send(signal.SIGUSR1)
        while not all(final_file(self._directory / host).exists() for host in self.hosts):
            time.sleep(0.02)
        return time.monotonic()

    def complete(self, truths: Mapping[str, Truth], recorded: Recorded) -> list[str]:
        """Add to the truth what only the consumers can have; return what cannot be compared."""
        return [
            f"{consumer}: unknown host {name}"
            for consumer, hosts in recorded.items()
            for name in hosts.keys() - truths.keys()
        ]

    def replace_store(self, saved: Path) -> None:
        """Put back a store of the broker that was copied before."""
        self.broker.kill()
        shutil.rmtree(self.broker.store)
        saved.rename(self.broker.store)
        self.broker.start()

    def copy_store(self) -> Path:
        """Copy the store of the broker while it does not run."""
        saved = self._directory / "older"
        self.broker.kill()
        shutil.copytree(self.broker.store, saved)
        self.broker.start()
        return saved

    def failures(self) -> list[str]:
        """Return which processes have ended by themselves, or reported an error of Python."""
        found = []
        for name, process in self.processes.items():
            if process.status is not None:
                found.append(f"{name} ended with {process.status}: {process.log()}")
            elif "Traceback" in process.log():
                found.append(f"{name}: {process.log()}")
        return found


async def _make_stream(url: str) -> None:
    async with Connection(url) as connection:
        await connection.make_shipped_stream()


def cause(fleet: Fleet, events: Sequence[Event], seconds: float) -> None:
    """Cause the faults, and return after so many seconds."""
    begin, number = time.monotonic(), len(events)
    # The number keeps actions of one moment in order: they cannot be compared.
    due: list[tuple[float, int, Action]] = [
        (event.time, index, partial(_begin, fleet, event)) for index, event in enumerate(events)
    ]
    heapq.heapify(due)
    while due:
        at, _, act = heapq.heappop(due)
        time.sleep(max(0.0, begin + at - time.monotonic()))
        following = act()
        if following is not None:
            number += 1
            heapq.heappush(due, (at + following[0], number, following[1]))
    time.sleep(max(0.0, begin + seconds - time.monotonic()))


def _begin(fleet: Fleet, event: Event) -> tuple[float, Action]:
    """Cause a fault; return after which time what ends it."""
    if event.fault is Fault.OLDER:
        return event.down, partial(fleet.replace_store, fleet.copy_store())
    if event.name == BROKER:
        fleet.broker.kill()
        return event.down, fleet.broker.start
    process = fleet.processes[event.name]
    if event.name in fleet.recorders:
        fleet.wait_for_write(event.name)
    if event.fault is Fault.RESTART:
        process.stop()
    else:
        process.kill()
    return event.down, process.start


def settle(fleet: Fleet) -> float | None:
    """End the changes; return how long after that each consumer had the last one of each host,
    None: they never had."""
    begin = fleet.end_changes()
    last = [fleet.last_change(host) for host in fleet.hosts]
    while True:
        took = time.monotonic() - begin
        tails = [fleet.tail(consumer) for consumer in fleet.consumers]
        if all(line in tail for line in last for tail in tails):
            return took
        if took > _MAX_QUIET_SECONDS:
            return None
        time.sleep(0.2)


def report(fleet: Fleet, quiet: float | None) -> Report:
    """Compare what the consumers recorded with the truth. ``quiet``: see ``Report``."""
    truths = {host: fleet.truth(host) for host in fleet.hosts}
    outcomes, problems = [], fleet.failures()
    for process in fleet.recorders.values():
        process.stop()
    recorded = {consumer: by_host(fleet.lines(consumer)) for consumer in fleet.consumers}
    problems += fleet.complete(truths, recorded)
    for consumer, hosts in recorded.items():
        for host, truth in truths.items():
            outcomes.append((consumer, host, check(truth, hosts.get(host, []))))
    return Report(outcomes, quiet, problems)


@contextmanager
def running(
    directory: Path, size: Size, nats_server: str, kind: type[Fleet] = Fleet
) -> Iterator[Fleet]:
    """Run a fleet, whose files are in a directory with a short path."""
    with ExitStack() as stack:
        fleet = kind(directory, size, nats_server, stack)
        fleet.wait_for_start()
        yield fleet


def run(
    directory: Path, seed: int, scenario: Scenario, nats_server: str = "nats-server",
    kind: type[Fleet] = Fleet,
) -> Report:  # fmt: skip
    """Run a scenario, in a directory with a short path; print what will be done."""
    with running(directory, scenario.size, nats_server, kind) as fleet:
        events = plan(seed, scenario.seconds, fleet.kinds, scenario.wanted)
        print(f"seed {seed}; {summary(events, fleet.kinds)}\n", flush=True)
        cause(fleet, events, scenario.seconds)
        return report(fleet, settle(fleet))
