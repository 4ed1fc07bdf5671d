"""What the live feed costs: ``python -m bench.feed``.

A real agent serves 1,000 and then 10,000 WebSocket subscribers. Once a second one socket is opened,
which is one message to each. Beside it, in the same run, the same crowd at a plain loop around
``websockets.broadcast``. Processor time decides: the agent's is all it uses, polls included; per
message what it uses more than while nothing happens.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .agent import Follower
from .commands import sockagent

SIZES = (1_000, 10_000)
# Clients in one process: below what a process may have open.
_CROWD = 5_000
_SECONDS = 15
_PATIENCE_SECONDS = 120.0
# Microseconds of processor time per message and subscriber, KiB each, seconds to the last one, and
# processor time per second with one message a second.
BARS = {"cpu_us": 20.0, "kib": 24.0, "p99": 1.0, "core": 0.5}


class Cost(NamedTuple):
    """What serving so many subscribers costs."""

    server: str
    subscribers: int
    cpu_us: float  # Per message and subscriber.
    kib: float  # Resident, per subscriber.
    core: float  # Processor seconds a second, with one message a second.
    p50: float  # Seconds from a message's time to its last subscriber.
    p99: float


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def server(name: str, port: int) -> Iterator[Follower]:
    """The agent, or the reference, serving."""
    if name == "sockagent":
        command = sockagent(
            "--listen", f"127.0.0.1:{port}", "--max-clients", "20000",
            "--max-clients-per-address", "20000", "--max-handshakes", "2000",
        )  # fmt: skip
    else:
        command = (sys.executable, "-m", "bench.broadcast", str(port))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + _PATIENCE_SECONDS
            while time.monotonic() < end:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            time.sleep(2.0)
            yield Follower(process)
        finally:
            process.terminate()


@contextmanager
def crowd(port: int, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """So many subscribers of what is opened, in processes of their own."""
    url = f"ws://127.0.0.1:{port}/events?proto=udp&event=open"
    with ExitStack() as stack:
        processes = []
        while count:
            size = min(count, _CROWD)
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


def cost(name: str, count: int) -> Cost:
    """Measure one server with so many subscribers."""
    port = free_port()
    with server(name, port) as serving:
        before = serving.rss()
        with crowd(port, count) as processes:
            time.sleep(5.0)  # The agent has told of the subscribers' own sockets by now.
            kib = (serving.rss() - before) / count
            quiet = 0.0
            if name == "sockagent":  # The reference never rests.
                quiet = serving.cpu_per_poll(_SECONDS, 1.0)
            started = serving.cpu()
            opened = []
            for _ in range(_SECONDS):
                if name == "sockagent":
                    one = socket.socket(type=socket.SOCK_DGRAM)
                    one.bind(("127.0.0.1", 0))
                    opened.append(one)
                time.sleep(1.0)
            core = (serving.cpu() - started) / _SECONDS
            delays = last_of(processes, count)
            for one in opened:
                one.close()
    per_message = (core - quiet) / count * 1e6
    ordered = sorted(delays)
    return Cost(
        name, count, per_message, kib, core, median(ordered),
        ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
    )  # fmt: skip


def last_of(processes: list[subprocess.Popen[str]], count: int) -> list[float]:
    """How long each message that reached all took to the last subscriber."""
    seen: dict[str, int] = {}
    last: dict[str, float] = {}
    for process in processes:
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        for text, (subscribers, seconds) in json.loads(process.stdout.readline()).items():
            seen[text] = seen.get(text, 0) + subscribers
            last[text] = max(last.get(text, 0.0), seconds)
    return [seconds for text, seconds in last.items() if seen[text] >= count]


def markdown(costs: list[Cost]) -> str:
    """The table."""
    heading = (
        "| server | subscribers | CPU per message and subscriber, µs | resident each, KiB "
        "| of one core, one message a second | to the last subscriber p50, ms | p99, ms |"
    )
    rows = (
        f"| {one.server} | {one.subscribers:,} | {one.cpu_us:.1f} | {one.kib:.1f} "
        f"| {one.core:.2f} | {one.p50 * 1000:.0f} | {one.p99 * 1000:.0f} |"
        for one in costs
    )
    return "\n".join((heading, "|---|---:|---:|---:|---:|---:|---:|", *rows))


def misses(costs: list[Cost]) -> list[str]:
    """The bars that sockagent misses."""
    return [
        f"{one.subscribers} subscribers: {name} {getattr(one, name):.2f}, at most {bar}"
        for one in costs
        if one.server == "sockagent"
        for name, bar in BARS.items()
        if getattr(one, name) > bar
    ]


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="python -m bench.feed", description=__doc__)
    parser.add_argument(
        "--sizes", default=",".join(map(str, SIZES)), help="subscribers: 1000,10000"
    )
    parser.add_argument("--json", type=Path, help="write everything measured there")
    options = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    costs = []
    for size in map(int, options.sizes.split(",")):
        for name in ("sockagent", "websockets.broadcast"):
            costs.append(cost(name, size))
            print(costs[-1], file=sys.stderr)
    print(markdown(costs))
    if options.json:
        options.json.write_text(json.dumps([one._asdict() for one in costs]))
    for miss in misses(costs):
        print(f"missed: {miss}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
