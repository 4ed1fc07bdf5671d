import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.service import status as service_module
from agent.service.handover import SavedState
from agent.service.sd_notify import Notifier
from agent.service.status import ServiceStatus
from agent.stream.feed import Feed

from ..feeding import AGENT, ONE, TWO, Source
from ..make import snapshot


class Manager:
    """Hears what a service tells."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": address}

    def heard(self) -> dict[str, str]:
        """The newest message."""
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = f"{tmp_path}/notify" if request.param == "path" else f"@sockagent-{os.getpid()}"
    made = Manager(address)
    yield made
    made.close()


# Nothing here takes so long, unless it hangs.
HANGS_SECONDS = 20.0


def service(manager: Manager, feed: Feed, **environment: str) -> ServiceStatus:
    return ServiceStatus(Notifier({**manager.environment, **environment}), feed, lambda: 3, 1.0)


def test_the_first_poll_makes_it_ready(manager: Manager) -> None:
    source = Source()
    one = service(manager, source.feed)
    source.poll(ONE)
    one.report_poll()
    # What an earlier run left has been taken up.
    assert manager.heard() == {"FDSTOREREMOVE": "1", "FDNAME": "state"}
    told = manager.heard()
    assert told["READY"] == "1"
    assert told["STATUS"].startswith("1 sockets of 1 processes, 3 subscribers; ")
    one.report_poll()
    with pytest.raises(BlockingIOError):  # Nothing new is said of each poll.
        manager.heard()


def test_each_poll_feeds_the_watchdog(manager: Manager) -> None:
    source = Source()
    one = service(manager, source.feed, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    source.poll(ONE)
    for _ in range(3):
        one.report_poll()
    assert manager.heard() == {"WATCHDOG": "1"}
    assert "FDSTOREREMOVE" in manager.heard()
    assert manager.heard()["READY"] == "1"
    assert manager.heard() == manager.heard() == {"WATCHDOG": "1"}


def test_too_much_to_be_handed_on_is_not(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service_module, "MAX_HOLDINGS", 1)
    one = service(manager, Feed(AGENT))
    for held in ((ONE,), (ONE, TWO)):
        one.store_state(SavedState("epoch", 0, snapshot(*held), {}, []), ("host", "boot"))
    assert manager.heard() == {"FDSTORE": "1", "FDNAME": "state"}
    with pytest.raises(BlockingIOError):
        manager.heard()
    time.sleep(0.1)
    assert "clients begin anew: 2 sockets are too many to be handed on" in capfd.readouterr().err


def test_a_long_poll_feeds_it_as_it_goes_on(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = service(manager, Feed(AGENT), WATCHDOG_USEC="30000000")
    one.report_progress()
    with pytest.raises(BlockingIOError):  # Not so soon.
        manager.heard()
    monkeypatch.setattr(service_module, "FEED_SECONDS", 0.0)
    one.report_progress()
    assert manager.heard() == {"WATCHDOG": "1"}


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"},
     {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}],
)  # fmt: skip
def test_a_watchdog_that_is_not_ours(manager: Manager, environment: dict[str, str]) -> None:
    assert Notifier({**manager.environment, **environment}).watchdog is None


def test_a_watchdog_waits_for_some_polls(manager: Manager) -> None:
    service(manager, Feed(AGENT), WATCHDOG_USEC="2000000")
    assert manager.heard() == {"WATCHDOG_USEC": "3000000"}


def test_reloading_is_told(manager: Manager) -> None:
    one = service(manager, Feed(AGENT))
    one.report_reloading()
    told = manager.heard()
    assert told["RELOADING"] == "1"
    assert abs(int(told["MONOTONIC_USEC"]) / 1e6 - time.monotonic()) < 60
    one.report_reloaded()
    assert manager.heard()["READY"] == "1"
    one.report_reloaded("the token file /x: there is no token in it")
    assert manager.heard()["STATUS"].endswith(
        "; the reload changed nothing: the token file /x: there is no token in it"
    )
    one.report_reloaded()
    assert "reload" not in manager.heard()["STATUS"]
    one.report_stopping()
    assert manager.heard()["STOPPING"] == "1"


@pytest.mark.parametrize("address", ["", "vsock:1:2", "/nowhere/notify"])
def test_where_nobody_listens_nothing_happens(address: str) -> None:
    feed = Feed(AGENT)
    one = ServiceStatus(Notifier({"NOTIFY_SOCKET": address}), feed, lambda: 0, 1.0)
    feed.publish(snapshot(), [])
    one.report_poll()


def test_what_systemd_hands_over() -> None:
    script = """
import os, socket, sys
from agent.service.sd_notify import listen_fds
os.environ["LISTEN_PID"] = os.environ.get("LISTEN_PID") or str(os.getpid())
found = {name: [socket.socket(fileno=one) for one in descriptors]
         for name, descriptors in listen_fds(os.environ).items()}
print({name: [one.getsockname()[1] for one in sockets] for name, sockets in found.items()})
print(sorted(name for name in os.environ if name.startswith("LISTEN_")))
print([os.get_inheritable(one.fileno()) for sockets in found.values() for one in sockets])
"""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [made.getsockname()[1] for made in (one, two)]

        def hand_over() -> None:
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
                preexec_fn=hand_over,
            )  # fmt: skip
            assert done.stdout.splitlines() == [str(expected), "[]", "[False, False]"]
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True,
            env={**os.environ, "LISTEN_FDS": "2", "LISTEN_PID": "1"}, close_fds=False,
            preexec_fn=hand_over,
        )  # fmt: skip
        assert done.stdout.splitlines()[0] == "{}"


def test_who_waits_on_a_listener_is_turned_away() -> None:
    script = """
import os, sys
from agent.service.sd_notify import reject_pending
os.dup2(int(sys.argv[1]), 3)
reject_pending({"LISTEN_PID": "1", "LISTEN_FDS": "1"})  # Not ours.
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
