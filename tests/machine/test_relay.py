"""A relay of three agents, each alone in its namespaces, and all of them killed under churn."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from ..make import Fold
from ..relaying import Folds
from .helpers import COMMAND, DEADLINE, need_root, need_tool

NAMES = ("alpha", "beta", "gamma")
CHURN_SECONDS = 15.0
# The first process of the namespaces: it starts the agent again whenever that is killed.
HOST = """
hostname {name}
ip link set lo up
{python} -m tests.machine.churner {directory} {seed} {seconds} 0.02 &
while :; do {command} --listen unix:{path} --interval 0.2 2>> {directory}/../{name}.log; done
"""
# Opens and closes more sockets than the history has room for.
BURST = """
import resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (9000, 9000))
for turn in range(4):
    held = [socket.socketpair() for _ in range(2500)]
    time.sleep(0.7)
    for one, other in held:
        one.close(), other.close()
    time.sleep(0.7)
"""


class Host:
    """An agent and a churner in namespaces of their own, as on another machine."""

    def __init__(self, name: str, directory: Path, stack: ExitStack, seconds: float) -> None:
        self.name = name
        self.path = f"{directory}/{name}.sock"
        sockets = directory / name
        sockets.mkdir()
        script = HOST.format(
            name=name, python=sys.executable, directory=sockets, seconds=seconds, path=self.path,
            seed=random.randrange(2**32), command=" ".join(COMMAND),
        )  # fmt: skip
        self.process = stack.enter_context(
            subprocess.Popen(
                ("unshare", "--uts", "--net", "--ipc", "--pid", "--fork", "--kill-child",
                 "--mount-proc", "sh", "-c", script),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2],
            )
        )  # fmt: skip
        stack.callback(self.process.kill)

    def first_process(self) -> int:
        """Return the first process of the namespaces."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            for pid in children(self.process.pid):
                return pid
            time.sleep(0.05)
        raise TimeoutError

    def kill_agent(self) -> None:
        """Kill the agent, if it runs at the moment."""
        for pid in children(self.first_process()):
            with suppress(OSError):
                if b"--listen" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    def burst(self) -> subprocess.Popen[bytes]:
        """Start a process that opens and closes many sockets there."""
        pid = str(self.first_process())
        return subprocess.Popen(
            ("nsenter", "-t", pid, "-p", "-m", "-n", "-u", sys.executable, "-c", BURST)
        )


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Relay:
    """The relay of some hosts; it may be killed and started again."""

    def __init__(self, hosts: list[Host], directory: Path) -> None:
        self.path = f"{directory}/relay.sock"
        self.log = directory / "relay.log"
        remotes = [word for host in hosts for word in ("--connect", f"unix:{host.path}")]
        self._command = (*COMMAND, *remotes, "--listen", f"unix:{self.path}")
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )

    def kill(self) -> None:
        """Kill the relay with SIGKILL."""
        self.process.kill()
        self.process.wait()


class Subscriber:
    """Follows a relay, or an agent, over any number of connections."""

    def __init__(self, path: str) -> None:
        self.folds = Folds()
        self._path = path
        self.resumed: list[str] = []  # Hosts, each time.

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            with suppress(ConnectionClosed, InvalidHandshake, OSError):
                async for message in self._messages():
                    for record in self.folds.take(message):
                        if record["event"] == "hello" and record["resumed"]:
                            self.resumed.append(record["host"])
            await asyncio.sleep(0.1)

    async def _messages(self) -> AsyncIterator[bytes]:
        query = "&".join(f"epoch={epoch}&since={at}" for epoch, at in self.folds.position.resume)
        async with unix_connect(
            self._path, uri=f"ws://localhost/events?{query}", compression=None, max_queue=1
        ) as feed:
            self.folds.connect()
            while True:
                yield await feed.recv(decode=False)

    async def until(self, holds: object, seconds: float = DEADLINE) -> None:
        """Read until a function returns true."""
        assert callable(holds)
        reading = asyncio.create_task(self.run())
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    if reading.done():
                        reading.result()
                    await asyncio.sleep(0.05)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def states(self) -> dict[str, Fold]:
        """Return the state of each host."""
        return {name: self.folds.state(name) for name in NAMES}

    def is_whole(self, names: tuple[str, ...] = NAMES) -> bool:
        """Return whether the snapshot of each host is complete."""
        hosts = self.folds.hosts
        return all(name in hosts and hosts[name].is_whole for name in names)


@contextmanager
def relayed(directory: Path, seconds: float) -> Iterator[tuple[list[Host], Relay]]:
    need_root()
    for tool in ("unshare", "nsenter", "ip"):
        need_tool(tool)
    with ExitStack() as stack:
        hosts = [Host(name, directory, stack, seconds) for name in NAMES]
        relay = Relay(hosts, directory)
        stack.callback(relay.kill)
        yield hosts, relay


async def fold_of(host: Host) -> Fold:
    """Return the state that a subscriber of the agent itself has."""
    direct = Subscriber(host.path)
    await direct.until(lambda: direct.is_whole((host.name,)))
    return direct.folds.state(host.name)


async def until_equal(subscriber: Subscriber, hosts: list[Host]) -> None:
    """Read until the subscriber's state is that of each agent."""
    end = time.monotonic() + 2 * DEADLINE
    while True:
        direct = {host.name: await fold_of(host) for host in hosts}
        with suppress(TimeoutError):
            await subscriber.until(
                lambda: subscriber.is_whole() and subscriber.states() == direct,  # noqa: B023
                2.0,
            )
            return
        if time.monotonic() > end:
            assert subscriber.states() == direct


async def test_the_state_is_right_after_each_agent_and_the_relay_were_killed(
    tmp_path: Path,
) -> None:
    with relayed(tmp_path, CHURN_SECONDS) as (hosts, relay):
        subscriber = Subscriber(relay.path)
        await subscriber.until(subscriber.is_whole)
        end = time.monotonic() + CHURN_SECONDS
        reading = asyncio.create_task(subscriber.run())
        victims = [host.kill_agent for host in hosts]
        turn = 0
        while time.monotonic() < end:
            if turn % 4 == 3:
                relay.kill()
                await asyncio.sleep(0.3)
                relay.start()
            else:
                victims[turn % 4]()
            turn += 1
            await asyncio.sleep(1.2)
            if reading.done():
                reading.result()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await until_equal(subscriber, hosts)
        events = {event for _, event in subscriber.folds.events}
        assert events >= {"hello", "snapshot", "open", "close", "lost"}
        assert all(len(subscriber.folds.state(host.name)) > 3 for host in hosts)
        # Over a restart of the relay alone, each host resumes.
        before = len(subscriber.resumed)
        relay.kill()
        relay.start()
        await subscriber.until(lambda: len(subscriber.resumed) >= before + len(hosts))
        assert sorted(subscriber.resumed[before:]) == sorted(NAMES)
        await until_equal(subscriber, hosts)
        assert "Traceback" not in relay.log.read_text()


async def test_a_subscriber_that_is_too_slow_gets_lost_from_the_relay(tmp_path: Path) -> None:
    with relayed(tmp_path, 0.0) as (hosts, relay):
        subscriber, other = Subscriber(relay.path), Subscriber(relay.path)
        await subscriber.until(subscriber.is_whole)
        await other.until(other.is_whole)
        messages = subscriber._messages()
        subscriber.folds.take(await anext(messages))
        with hosts[0].burst() as burst:
            await other.until(lambda: burst.poll() is not None, 2 * DEADLINE)
        # Of a burst, all changes of the last 5 seconds are kept.
        await asyncio.sleep(6)
        with hosts[0].burst() as burst:
            await other.until(lambda: burst.poll() is not None, 2 * DEADLINE)
        async with asyncio.timeout(2 * DEADLINE):
            while ("alpha", "lost") not in subscriber.folds.events:
                subscriber.folds.take(await anext(messages))
        await messages.aclose()  # type: ignore[attr-defined]
        assert {host for host, event in subscriber.folds.events if event == "lost"} == {"alpha"}
        await until_equal(subscriber, hosts)
        await until_equal(other, hosts)
