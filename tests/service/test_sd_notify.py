import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agent.service import status as status_module
from agent.service.handover import SavedState
from agent.service.sd_notify import Notifier
from agent.service.status import ServiceStatus, describe_agent
from agent.stream.feed import Feed

from ..feeding import AGENT, ONE, TWO, Source
from ..make import snapshot


class Manager:
    """The notification socket of systemd."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": address}

    def received(self) -> dict[str, str]:
        """Return the variables of the next message."""
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = f"{tmp_path}/notify" if request.param == "path" else f"@sockagent-{os.getpid()}"
    made = Manager(address)
    yield made
    made.close()


# Only a test that hangs takes longer.
HANGS_SECONDS = 20.0


def status_of(manager: Manager, feed: Feed, **environment: str) -> ServiceStatus:
    notifier = Notifier({**manager.environment, **environment})
    return ServiceStatus(notifier, partial(describe_agent, feed, lambda: 3), 1.0)


def test_the_first_poll_makes_the_service_ready(manager: Manager) -> None:
    source = Source()
    one = status_of(manager, source.feed)
    source.poll(ONE)
    one.report_poll()
    # The state of the earlier run has been loaded.
    assert manager.received() == {"FDSTOREREMOVE": "1", "FDNAME": "state"}
    message = manager.received()
    assert message["READY"] == "1"
    assert message["STATUS"].startswith("1 sockets of 1 processes, 3 subscribers; ")
    one.report_poll()
    with pytest.raises(BlockingIOError):  # Not after each poll.
        manager.received()


def test_each_poll_resets_the_watchdog(manager: Manager) -> None:
    source = Source()
    one = status_of(manager, source.feed, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    source.poll(ONE)
    for _ in range(3):
        one.report_poll()
    assert manager.received() == {"WATCHDOG": "1"}
    assert "FDSTOREREMOVE" in manager.received()
    assert manager.received()["READY"] == "1"
    assert manager.received() == manager.received() == {"WATCHDOG": "1"}


def test_a_state_that_is_too_large_is_not_stored(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_module, "MAX_HOLDINGS", 1)
    one = status_of(manager, Feed(AGENT))
    for held in ((ONE,), (ONE, TWO)):
        one.store_state(SavedState("epoch", 0, snapshot(*held), {}, []), ("host", "boot"))
    assert manager.received() == {"FDSTORE": "1", "FDNAME": "state"}
    with pytest.raises(BlockingIOError):
        manager.received()
    time.sleep(0.1)
    assert (
        "the state is not saved: it has 2 sockets, and the limit is 1; "
        "subscribers get a new snapshot"
    ) in capfd.readouterr().err


def test_a_long_poll_resets_the_watchdog_several_times(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = status_of(manager, Feed(AGENT), WATCHDOG_USEC="30000000")
    one.report_progress()
    with pytest.raises(BlockingIOError):  # Too early.
        manager.received()
    monkeypatch.setattr(status_module, "WATCHDOG_SECONDS", 0.0)
    one.report_progress()
    assert manager.received() == {"WATCHDOG": "1"}


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"},
     {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}],
)  # fmt: skip
def test_an_invalid_or_foreign_watchdog_is_ignored(
    manager: Manager, environment: dict[str, str]
) -> None:
    assert Notifier({**manager.environment, **environment}).watchdog_seconds is None


def test_a_short_watchdog_is_extended_to_some_polls(manager: Manager) -> None:
    status_of(manager, Feed(AGENT), WATCHDOG_USEC="2000000")
    assert manager.received() == {"WATCHDOG_USEC": "3000000"}


def test_a_reload_and_its_error_are_reported(manager: Manager) -> None:
    one = status_of(manager, Feed(AGENT))
    one.report_reloading()
    message = manager.received()
    assert message["RELOADING"] == "1"
    assert abs(int(message["MONOTONIC_USEC"]) / 1e6 - time.monotonic()) < 60
    one.report_reloaded()
    assert manager.received()["READY"] == "1"
    one.report_reloaded("/x: no token")
    assert manager.received()["STATUS"].endswith("; reload failed: /x: no token")
    one.report_reloaded()
    assert "reload" not in manager.received()["STATUS"]
    one.report_stopping()
    assert manager.received()["STOPPING"] == "1"


@pytest.mark.parametrize("address", ["", "vsock:1:2", "/nowhere/notify"])
def test_without_a_notification_socket_nothing_is_sent(address: str) -> None:
    feed = Feed(AGENT)
    describe = partial(describe_agent, feed, lambda: 0)
    one = ServiceStatus(Notifier({"NOTIFY_SOCKET": address}), describe, 1.0)
    feed.publish(snapshot(), [])
    one.report_poll()


def test_descriptors_passed_by_systemd_are_returned_by_name() -> None:
    script = """
import os, socket, sys
from agent.service.sd_notify import listen_fds
os.environ["LISTEN_PID"] = os.environ.get("LISTEN_PID") or str(os.getpid())
passed = {name: [socket.socket(fileno=one) for one in descriptors]
         for name, descriptors in listen_fds(os.environ).items()}
print({name: [one.getsockname()[1] for one in sockets] for name, sockets in passed.items()})
print(sorted(name for name in os.environ if name.startswith("LISTEN_")))
print([os.get_inheritable(one.fileno()) for sockets in passed.values() for one in sockets])
"""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [made.getsockname()[1] for made in (one, two)]

        def pass_descriptors() -> None:
            for descriptor, made in ((10, one), (11, two)):
                os.dup2(made.fileno(), descriptor)
            os.dup2(10, 3)
            os.dup2(11, 4)

        for names, expected in (
            ("feed:other", {"feed": [ports[0]], "other": [ports[1]]}),
            ("feed:feed", {"feed": ports}),
            ("", {"unknown": ports}),
        ):
            done = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=True,
                env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": names}, close_fds=False,
                preexec_fn=pass_descriptors,
            )  # fmt: skip
            assert done.stdout.splitlines() == [str(expected), "[]", "[False, False]"]
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True,
            env={**os.environ, "LISTEN_FDS": "2", "LISTEN_PID": "1"}, close_fds=False,
            preexec_fn=pass_descriptors,
        )  # fmt: skip
        assert done.stdout.splitlines()[0] == "{}"


def test_pending_connections_are_closed() -> None:
    script = """
import os, sys
from agent.service.sd_notify import reject_pending
os.dup2(int(sys.argv[1]), 3)
reject_pending({"LISTEN_PID": "1", "LISTEN_FDS": "1"})  # Of another process.
reject_pending({**os.environ, "LISTEN_PID": str(os.getpid())})
"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        waiting = [socket.create_connection(listening.getsockname()) for _ in range(3)]
        done = subprocess.run(
            [sys.executable, "-c", script, str(listening.fileno())],
            pass_fds=[listening.fileno()], env={**os.environ, "LISTEN_FDS": "1"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        for one in waiting:
            one.settimeout(HANGS_SECONDS)
            assert one.recv(1) == b""
            one.close()
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
