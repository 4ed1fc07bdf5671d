"""Measure the CPU time and the memory of the WebSocket feed per subscriber.

An agent serves 1,000 and then 10,000 subscribers. Once a second one socket is opened, which is one
message to each of them. A loop around ``websockets.broadcast`` serves as many in the same run; with
--agent PATH another checkout does, in turn with this one. The agent's CPU time includes its polls;
the CPU time of a message is the difference to polls in which nothing happens.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .agents import Agent, RunningAgent, add_agent, agents_of
from .report import log, ratio

SIZES = (1_000, 10_000)
# Clients of one process, below RLIMIT_NOFILE.
_CLIENTS_PER_PROCESS = 5_000
_START_SECONDS = 120.0
# By then the agent has reported the sockets of the subscribers themselves.
_SETTLE_SECONDS = 5.0
_PAIR_ROUNDS = 5
_BROADCAST = "websockets.broadcast"
# Limits: microseconds of CPU per message and subscriber, KiB per subscriber, seconds to the last
# subscriber, and CPU seconds per second with one message a second.
LIMITS = {"cpu_us": 20.0, "kib": 24.0, "p99": 1.0, "core": 0.5}


class Cost(NamedTuple):
    """The cost of serving a number of subscribers."""

    server: str
    subscribers: int
    cpu_us: float  # Per message and subscriber.
    kib: float  # Resident, per subscriber.
    core: float  # CPU seconds per second, with one message a second.
    p50: float  # Seconds from the time of a message until its last subscriber has it.
    p99: float


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def serving(agent: Agent | None, port: int) -> Iterator[RunningAgent]:
    """Run the agent as a server, or the broadcast loop if it is None."""
    command = (
        (sys.executable, "-m", "bench.broadcast", str(port))
        if agent is None
        else agent.command(
            "--listen", f"127.0.0.1:{port}", "--max-clients", "20000",
            "--max-clients-per-address", "20000", "--max-handshakes", "2000",
        )
    )  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + _START_SECONDS
            while time.monotonic() < end:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            time.sleep(2.0)
            yield RunningAgent(process)
        finally:
            process.terminate()


@contextmanager
def subscribers(port: int, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Connect this many subscribers to the opens of UDP sockets, in processes of their own."""
    url = f"ws://127.0.0.1:{port}/events?proto=udp&event=open"
    with ExitStack() as stack:
        processes = []
        while count:
            size = min(count, _CLIENTS_PER_PROCESS)
            process = stack.enter_context(
                subprocess.Popen(
                    (sys.executable, "-m", "bench.crowd", url, str(size)),
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
            stack.callback(process.kill)
            processes.append(process)
            count -= size
        for process in processes:
            assert process.stdout
            if process.stdout.readline() != "ready\n":
                raise SystemExit("the subscribers could not be connected")
        yield processes


def measure(agent: Agent | None, count: int, seconds: int) -> Cost:
    """Measure one server with this many subscribers, for this long without and with messages."""
    port = free_port()
    with serving(agent, port) as server:
        before = server.rss()
        with subscribers(port, count) as processes:
            time.sleep(_SETTLE_SECONDS)
            kib = (server.rss() - before) / count
            # The broadcast loop sends a message each second, even now.
            quiet = 0.0 if agent is None else server.cpu_per_poll(seconds, 1.0)
            started = server.cpu()
            opened = []
            for _ in range(seconds):
                if agent is not None:
                    one = socket.socket(type=socket.SOCK_DGRAM)
                    one.bind(("127.0.0.1", 0))
                    opened.append(one)
                time.sleep(1.0)
            core = (server.cpu() - started) / seconds
            delays = sorted(delays_of(processes, count))
            for one in opened:
                one.close()
    return Cost(
        _BROADCAST if agent is None else agent.name, count, (core - quiet) / count * 1e6, kib, core,
        median(delays), delays[min(len(delays) - 1, int(len(delays) * 0.99))],
    )  # fmt: skip


def delays_of(processes: list[subprocess.Popen[str]], count: int) -> list[float]:
    """Return how long each message took to the last subscriber, if it reached all of them."""
    seen: dict[str, int] = {}
    last: dict[str, float] = {}
    for process in processes:
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        for text, (reached, seconds) in json.loads(process.stdout.readline()).items():
            seen[text] = seen.get(text, 0) + reached
            last[text] = max(last.get(text, 0.0), seconds)
    return [seconds for text, seconds in last.items() if seen[text] >= count]


def table(costs: Sequence[Cost]) -> str:
    """Return the medians of the costs by server and number of subscribers, as Markdown."""
    heading = (
        "| server | subscribers | CPU per message and subscriber, µs | resident each, KiB "
        "| of one core, one message a second | to the last subscriber p50, ms | p99, ms |"
    )
    lines = [heading, "|---|---:|---:|---:|---:|---:|---:|"]
    for (server, count), some in _grouped(costs).items():
        cpu_us, kib, core, p50, p99 = (
            median(column) for column in list(zip(*some, strict=True))[2:]
        )
        lines.append(
            f"| {server} | {count:,} | {cpu_us:.1f} | {kib:.1f} | {core:.2f} "
            f"| {p50 * 1000:.0f} | {p99 * 1000:.0f} |"
        )
    return "\n".join(lines)


def ratios(costs: Sequence[Cost]) -> str:
    """Return the ratios of this agent to the other one, by number of subscribers."""
    groups = _grouped(costs)
    return "\n".join(
        f"this / other with {count:,} subscribers (quartiles): CPU per message and subscriber "
        f"{ratio([one.cpu_us for one in some], [one.cpu_us for one in groups['other', count]])}, "
        f"core {ratio([one.core for one in some], [one.core for one in groups['other', count]])}, "
        f"KiB {ratio([one.kib for one in some], [one.kib for one in groups['other', count]])}"
        for (server, count), some in groups.items()
        if server == "this"
    )


def _grouped(costs: Sequence[Cost]) -> dict[tuple[str, int], list[Cost]]:
    groups: dict[tuple[str, int], list[Cost]] = {}
    for one in costs:
        groups.setdefault((one.server, one.subscribers), []).append(one)
    return groups


def misses(costs: Sequence[Cost]) -> list[str]:
    """Return the limits that sockagent exceeds."""
    return [
        f"{one.subscribers} subscribers: {name} {getattr(one, name):.2f}, at most {limit}"
        for one in costs
        if one.server == "sockagent"
        for name, limit in LIMITS.items()
        if getattr(one, name) > limit
    ]


def main() -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench feed", description=__doc__)
    add = parser.add_argument
    add(
        "--sizes", default=",".join(map(str, SIZES)), metavar="N,N", help="subscribers (1000,10000)"
    )
    add("--rounds", type=int, metavar="N", help=f"rounds (1; with --agent: {_PAIR_ROUNDS})")
    add("--seconds", type=int, default=15, metavar="N", help="messages in a round (15)")
    add("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    add_agent(parser)
    options = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    agents = agents_of(options.agent)
    servers: list[Agent | None] = list(agents) if options.agent else [*agents, None]
    costs: list[Cost] = []
    for size in map(int, options.sizes.split(",")):
        for number in range(options.rounds or (_PAIR_ROUNDS if options.agent else 1)):
            for agent in reversed(servers) if number % 2 else servers:
                costs.append(measure(agent, size, options.seconds))
                log(str(costs[-1]))
    print(table(costs))
    if options.agent:
        print(f"\n{ratios(costs)}")
    if options.json:
        options.json.write_text(json.dumps([one._asdict() for one in costs]))
    for miss in misses(costs):
        print(f"missed: {miss}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
