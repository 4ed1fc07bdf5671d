"""``--resolve`` with the resolver of the system and a DNS server, and with one that never
answers."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ..unshared import in_new_netns
from .helpers import COMMAND, DEADLINE, Holder, run
from .name_server import NameServer, use_only_name_server

ADDRESS, NAME = "127.0.0.77", "db.shop.example"
NAMES = {ADDRESS: NAME}
# Sockets that are opened until the log has a name: it comes with a line after the answer.
MAX_SOCKETS = 500
Names = Mapping[str, str] | None
Test = Callable[[NameServer, Holder], None]


@pytest.fixture
def with_names(tmp_path: Path) -> Callable[[Names, Test], None]:
    """Calls a function where only a DNS server with these names is asked."""

    def call(names: Names, test: Test) -> None:
        def inside() -> None:
            use_only_name_server(tmp_path)
            with closing(NameServer(names)) as server, Holder() as holder:
                test(server, holder)

        in_new_netns(inside)

    return call


@contextmanager
def listener(holder: Holder) -> Iterator[int]:
    """The port of a listener of the holder."""
    yield int(holder.do(f"[one := tcp_listener({ADDRESS!r}), one.getsockname()[1]][1]"))
    holder.do("one.close()")


@contextmanager
def log() -> Iterator[Iterator[str]]:
    """The lines of the log of the address, behind the first one; not those about polls."""
    command = (*COMMAND, "-f", "-o", "log", "--resolve", "--interval", "0.05", ADDRESS)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        watchdog = threading.Timer(DEADLINE, process.kill)
        watchdog.start()
        try:
            assert process.stdout
            assert "^C ends" in process.stdout.readline()
            yield (line for line in process.stdout if " coverage " not in line)
        finally:
            watchdog.cancel()
            process.terminate()


@pytest.mark.parametrize("output", ["table", "summary"])
def test_a_snapshot_has_the_names(with_names: Callable[[Names, Test], None], output: str) -> None:
    def test(server: NameServer, holder: Holder) -> None:
        with listener(holder) as port:
            shown = run("--resolve", "-o", output, ADDRESS).stdout
            assert f"{NAME}:{port}" in shown
            assert ADDRESS not in shown
        assert server.asked.is_set()

    with_names(NAMES, test)


def test_the_log_has_names_as_soon_as_they_are_known(
    with_names: Callable[[Names, Test], None],
) -> None:
    def test(_server: NameServer, holder: Holder) -> None:
        with log() as lines:
            for _ in range(MAX_SOCKETS):
                with listener(holder) as port:
                    line = next(lines)
                    assert f"{ADDRESS}:{port} " in line or f"{NAME}:{port} " in line
                next(lines)  # It is closed.
                if NAME in line:
                    return
        pytest.fail("no line has the name")

    with_names(NAMES, test)


def test_an_address_without_a_name_stays(
    with_names: Callable[[Names, Test], None],
) -> None:
    def test(server: NameServer, holder: Holder) -> None:
        with listener(holder) as port:
            shown = run("--resolve", "-o", "table", ADDRESS).stdout
            assert f"{ADDRESS}:{port}" in shown
        assert server.asked.is_set()

    with_names({}, test)


def test_a_snapshot_comes_where_the_server_never_answers(
    with_names: Callable[[Names, Test], None],
) -> None:
    """The resolver itself would wait longer than the deadline of the command."""

    def test(server: NameServer, holder: Holder) -> None:
        with listener(holder) as port:
            shown = run("--resolve", "-o", "table", ADDRESS).stdout
            assert f"{ADDRESS}:{port}" in shown
        assert server.asked.is_set()

    with_names(None, test)


def test_the_log_goes_on_where_the_server_never_answers(
    with_names: Callable[[Names, Test], None],
) -> None:
    def test(server: NameServer, holder: Holder) -> None:
        with log() as lines:
            for _ in range(3):
                with listener(holder) as port:
                    assert f"{ADDRESS}:{port} " in next(lines)
                assert " close " in next(lines)
            assert server.asked.wait(DEADLINE)
            with listener(holder) as port:
                assert f"{ADDRESS}:{port} " in next(lines)

    with_names(None, test)
