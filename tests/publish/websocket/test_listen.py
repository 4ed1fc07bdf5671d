import os
import socket
import stat
from pathlib import Path

import pytest

from agent.address import ListenAddress, parse_address
from agent.errors import RuntimeFailure, UsageError
from agent.publish.websocket.listen import open_listeners


@pytest.mark.parametrize(
    ("text", "expected", "local"),
    [
        ("127.0.0.1:8765", ListenAddress("127.0.0.1", 8765), True),
        ("127.8.9.10:1", ListenAddress("127.8.9.10", 1), True),
        ("localhost:0", ListenAddress("localhost", 0), True),
        ("[::1]:8765", ListenAddress("::1", 8765), True),
        ("0.0.0.0:8765", ListenAddress("0.0.0.0", 8765), False),
        ("*:8765", ListenAddress("0.0.0.0", 8765), False),
        ("[::]:8765", ListenAddress("::", 8765), False),
        ("192.0.2.1:8765", ListenAddress("192.0.2.1", 8765), False),
        ("localhost.example:8765", ListenAddress("localhost.example", 8765), False),
        ("unix:/run/sockagent.sock", ListenAddress("", 0, "/run/sockagent.sock"), True),
        ("unix:relative", ListenAddress("", 0, "relative"), True),
        ("systemd:feed", ListenAddress("", 0, name="feed"), True),
    ],
)
def test_parse_and_format_an_address(text: str, expected: ListenAddress, local: bool) -> None:
    listen = parse_address(text)
    assert (listen, listen.is_local) == (expected, local)
    assert parse_address(str(listen)) == listen


@pytest.mark.parametrize(
    "text",
    ["", "8765", ":8765", "systemd:", "127.0.0.1", "127.0.0.1:", "h:65536", "h:-1", "h:x",
     "::1:8765", "unix:", "unix:" + "x" * 108, "unix:a\0b", "h:²"],
)  # fmt: skip
def test_an_invalid_address(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


def test_the_address_contains_the_assigned_port() -> None:
    (listener,) = open_listeners(parse_address("127.0.0.1:0"), 0o600)
    with listener.socket:
        assert str(listener.address) == f"127.0.0.1:{listener.socket.getsockname()[1]}"


def test_an_address_in_use() -> None:
    (listener,) = open_listeners(parse_address("[::1]:0"), 0o600)
    with (
        listener.socket,
        pytest.raises(RuntimeFailure, match=r"cannot listen on \[::1\]:\d+: "),
    ):
        open_listeners(listener.address, 0o600)


def test_an_unknown_host_name() -> None:
    with pytest.raises(RuntimeFailure, match="cannot listen on nowhere"):
        open_listeners(parse_address("nowhere.invalid:1"), 0o600)


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_a_unix_socket_has_its_mode_and_is_removed(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "feed.sock"
    (listener,) = open_listeners(parse_address(f"unix:{path}"), mode)
    with listener.socket:
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert str(listener.address) == f"unix:{path}"
        listener.remove()
        assert not path.exists()
        listener.remove()


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "feed.sock"
    (stale,) = open_listeners(parse_address(f"unix:{path}"), 0o600)
    stale.socket.close()
    (listener,) = open_listeners(parse_address(f"unix:{path}"), 0o600)
    with listener.socket:
        stale.remove()  # The file is that of the second socket by now.
        assert path.exists()


def test_a_unix_socket_in_use_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "feed.sock"
    (listener,) = open_listeners(parse_address(f"unix:{path}"), 0o600)
    with listener.socket:
        with pytest.raises(RuntimeFailure, match="Address already in use"):
            open_listeners(parse_address(f"unix:{path}"), 0o600)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_a_file_that_is_not_a_socket_is_not_removed(tmp_path: Path, make: object) -> None:
    path = tmp_path / "feed.sock"
    make(path)  # type: ignore[operator]
    with pytest.raises(RuntimeFailure, match="the file exists and is not a socket"):
        open_listeners(parse_address(f"unix:{path}"), 0o600)
    assert path.exists()


def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="No such file or directory"):
        open_listeners(parse_address(f"unix:{tmp_path}/no/feed.sock"), 0o600)


def test_the_mode_is_restricted_until_chmod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    chmod = os.chmod

    def record_mode(path: str, mode: int) -> None:
        modes.append(stat.S_IMODE(os.stat(path).st_mode))
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", record_mode)
    path = tmp_path / "feed.sock"
    (listener,) = open_listeners(parse_address(f"unix:{path}"), 0o660)
    listener.socket.close()
    assert modes == [0o600]
