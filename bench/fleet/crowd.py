"""A fleet of many simulated hosts at a broker, and one consumer: rates, delays, CPU and memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from tests.broker import STREAM, Broker, Connection

from ..agents import ROOT, Agent, Memory, RunningAgent, agent_at

# Processes that publish; each has as many hosts.
PUBLISHERS = 4
_START_SECONDS = 120.0
_READ_BYTES = 1 << 20
_MIB = 1024


class Seen(NamedTuple):
    """What the consumer has printed: changes, how often one was missing or not in order, ``lost``
    records, and the seconds from each poll until its changes were read."""

    records: int
    gaps: int
    losses: int
    delays: list[float]


class Reader:
    """Reads what the consumer prints."""

    def __init__(self) -> None:
        self.records = self.gaps = self.losses = 0
        self.delays: list[float] = []
        self.hosts: dict[str, int] = {}  # The newest number of each.
        self._time = ""
        self._rest = b""

    def read(self, chunk: bytes, now: float) -> None:
        """Take a part of the output that arrived at a time."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            record = orjson.loads(line)
            event, host, seq = record["event"], record["host"], record["seq"]
            if event in ("open", "update", "close"):
                self.records += 1
                if record["time"] != self._time:
                    self._time = record["time"]
                    self.delays.append(now - datetime.fromisoformat(self._time).timestamp())
                self.gaps += seq != self.hosts.get(host, -1) + 1
            self.losses += event == "lost"
            self.hosts[host] = seq

    def take(self) -> Seen:
        """Return what was read since the last call."""
        seen = Seen(self.records, self.gaps, self.losses, self.delays)
        self.records = self.gaps = self.losses = 0
        self.delays = []
        return seen


class Cost(NamedTuple):
    """What the processes of one kind cost: seconds of CPU time a second, and KiB."""

    name: str
    core: float
    memory: Memory


class Result(NamedTuple):
    """The measurement of ``seconds``."""

    hosts: int
    seconds: float
    messages: int
    stored: int  # Bytes.
    seen: Seen
    costs: list[Cost]
    kib: float  # Resident, of the publishing processes, for each host beyond what none takes.


def measure(directory: Path, nats_server: str, hosts: int, seconds: float, rate: float) -> Result:
    """Run the fleet, and measure it for so many seconds once all hosts are read."""
    with ExitStack() as stack:
        broker = Broker(directory, program=nats_server)
        stack.callback(broker.stop)
        asyncio.run(_make_stream(broker.url))
        agent = agent_at(ROOT, "this")
        reader, consumer = _consumer(stack, agent, broker.url, directory)
        argv = (sys.executable, "-m", "bench.fleet.publishers", broker.url, str(rate))
        counts = [hosts // PUBLISHERS + (n < hosts % PUBLISHERS) for n in range(PUBLISHERS)]
        publishers, empty = [], 0.0
        log = stack.enter_context((directory / "publishers.log").open("wb"))
        for number, count in enumerate(counts):
            process = stack.enter_context(
                subprocess.Popen(
                    (*argv, f"sim{number}", str(count)), cwd=ROOT,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                )
            )  # fmt: skip
            stack.callback(process.kill)
            assert process.stdin
            assert process.stdout
            process.stdout.readline()  # It has no host yet.
            publishers.append(RunningAgent(process))
            empty += publishers[-1].rss()
            process.stdin.write(b"\n")
            process.stdin.flush()
        end = time.monotonic() + _START_SECONDS
        while len(reader.hosts) < hosts:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(reader.hosts)} of {hosts} hosts are read")
            time.sleep(0.5)
        time.sleep(5.0)
        groups = {"broker": [RunningAgent(broker.process)], "publishers": publishers,
                  "consumer": [consumer]}  # fmt: skip
        before = {name: _cpu(group) for name, group in groups.items()}
        reader.take()
        begin, first = time.monotonic(), asyncio.run(_state(broker.url))
        time.sleep(seconds)
        seen, last = reader.take(), asyncio.run(_state(broker.url))
        took = time.monotonic() - begin
        costs = [
            Cost(name, (_cpu(group) - before[name]) / took, _memory(group))
            for name, group in groups.items()
        ]
        kib = (sum(one.rss() for one in publishers) - empty) / hosts
        return Result(
            hosts, took, last[0] - first[0], last[1] - first[1], seen, costs, kib
        )  # fmt: skip


def _cpu(group: Sequence[RunningAgent]) -> float:
    return sum(one.cpu() for one in group)


def _memory(group: Sequence[RunningAgent]) -> Memory:
    found = [one.memory() for one in group]
    return Memory(sum(one.rss for one in found), sum(one.pss for one in found))


async def _make_stream(url: str) -> None:
    async with Connection(url) as connection:
        await connection.make_shipped_stream()


async def _state(url: str) -> tuple[int, int]:
    """Return how many messages were stored, and how many bytes they have."""
    async with Connection(url) as connection:
        found = orjson.loads(orjson.dumps(await connection.request(f"STREAM.INFO.{STREAM}")))
        return found["state"]["last_seq"], found["state"]["bytes"]


def _consumer(
    stack: ExitStack, agent: Agent, url: str, directory: Path
) -> tuple[Reader, RunningAgent]:
    """Start the consumer, and read what it prints in a thread."""
    log = stack.enter_context((directory / "consumer.log").open("wb"))
    process = stack.enter_context(
        subprocess.Popen(
            agent.command("--connect", url, "-o", "ndjson"),
            cwd=ROOT, stdout=subprocess.PIPE, stderr=log,
        )
    )  # fmt: skip
    reader = Reader()
    assert process.stdout
    thread = threading.Thread(target=_read, args=(reader, process.stdout.fileno()))
    thread.start()
    stack.callback(thread.join)  # Before the pipe is closed, once the consumer has ended.
    stack.callback(process.kill)
    return reader, RunningAgent(process)


def _read(reader: Reader, descriptor: int) -> None:
    while chunk := os.read(descriptor, _READ_BYTES):
        reader.read(chunk, time.time())


def lines(result: Result) -> list[str]:
    """Return the measurement as Markdown."""
    seen, seconds = result.seen, result.seconds
    delays = sorted(seen.delays)
    p50, p99 = delays[len(delays) // 2] * 1000, delays[int(len(delays) * 0.99)] * 1000
    per_record = result.stored / max(1, seen.records)
    figures = (
        f"{result.hosts:,} hosts, {seconds:.0f} s: {result.messages / seconds:,.0f} messages/s, "
        f"{seen.records / seconds:,.0f} records/s, {per_record:.0f} B stored a record; from the "
        f"poll to the consumer p50 {p50:.0f} ms, p99 {p99:.0f} ms, the longest "
        f"{delays[-1] * 1000:.0f} ms; {seen.gaps} gaps, {seen.losses} `lost` records; "
        f"{result.kib:.0f} KiB a host in the publishing processes; load average of the machine "
        f"{os.getloadavg()[1]:.1f}"
    )
    found = [
        figures,
        "",
        "| processes | of one core | CPU a record, µs | resident, MiB | proportional, MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, core, memory in result.costs:
        cpu = core * seconds / max(1, seen.records) * 1e6
        found.append(
            f"| {name} | {core:.2f} | {cpu:.1f} | {memory.rss / _MIB:.0f} "
            f"| {memory.pss / _MIB:.0f} |"
        )
    return found
