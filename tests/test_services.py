"""Names of ports, and targets in which ports are typed as names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import TargetError
from agent.services import ports_of, read_services, with_numbers
from agent.stream.targets import parse_target

PORTS = {"http": [80], "https": [443], "http-alt": [8080], "two": [512, 513], "7z": [7]}


def find(service: str) -> list[int]:
    return PORTS.get(service, [])


def test_services(tmp_path: Path) -> None:
    path = tmp_path / "services"
    path.write_bytes(
        b"# Network services\n"
        b"\n"
        b"ssh\t\t22/tcp\n"
        b"domain 53/tcp   nameserver # DNS\n"
        b"domain 53/udp\n"
        b"http 80/tcp www\t# WWW\n"
        b"other 80/tcp\n"
        b"#telnet 23/tcp\n"
        b"caf\xe9 90/tcp\n"
    )
    assert read_services(str(path)) == {
        ("tcp", 22): "ssh",
        ("tcp", 53): "domain",
        ("udp", 53): "domain",
        ("tcp", 80): "http",
        ("tcp", 90): "caf\ufffd",
    }


@pytest.mark.parametrize(
    "line", ["ssh", "ssh tcp/22", "ssh -22/tcp", "ssh \u00b2/tcp", "ssh /tcp", "# ssh 22/tcp", "\0"]
)
def test_a_line_that_names_no_port_is_left_out(tmp_path: Path, line: str) -> None:
    path = tmp_path / "services"
    path.write_text(f"{line}\nhttp 80/tcp\n", encoding="utf-8")
    assert read_services(str(path)) == {("tcp", 80): "http"}


def test_without_the_file_no_port_has_a_name(tmp_path: Path) -> None:
    assert read_services(str(tmp_path / "none")) == {}
    assert read_services(str(tmp_path)) == {}


def test_a_number_with_too_many_digits_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "services"
    path.write_text(f"long {'9' * 5_000}/tcp\nhttp 80/tcp\n", encoding="utf-8")
    assert read_services(str(path)) == {("tcp", 80): "http"}


@pytest.fixture
def services(tmp_path: Path) -> str:
    path = tmp_path / "services"
    path.write_text(
        "domain 53/tcp\n"
        "domain 53/udp\n"
        "postgresql 5432/tcp postgres # Database\n"
        "two 513/udp\n"
        "two 512/tcp\n",
        encoding="utf-8",
    )
    return str(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("domain", [53]),
        ("postgresql", [5432]),
        ("postgres", [5432]),
        ("two", [512, 513]),
        ("Domain", []),
        ("Database", []),
        ("", []),
    ],
)
def test_the_ports_of_a_service(services: str, name: str, expected: list[int]) -> None:
    assert ports_of(name, services) == expected


def test_without_the_file_no_service_has_a_port(tmp_path: Path) -> None:
    assert ports_of("http", str(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (":http", ":80"),
        ("*:http", "*:80"),
        (":http-alt", ":8080"),
        (":7z", ":7"),
        (":two", ":512,513"),
        (":http,:https,8000-8100", ":80,443,8000-8100"),
        ("localhost:https", "localhost:443"),
        ("10.0.0.7:http", "10.0.0.7:80"),
        ("10.0.0.0/8:two", "10.0.0.0/8:512,10.0.0.0/8:513"),
        ("[::1]:http", "[::1]:80"),
        ("[2001:db8::/32]:two", "[2001:db8::/32]:512,[2001:db8::/32]:513"),
        # What has no name of a port.
        (":htpp", ":htpp"),
        (":8080", ":8080"),
        (":80,:443", ":80,:443"),
        ("::http", "::http"),
        ("::1", "::1"),
        ("nginx:http", "nginx:http"),
        ("http", "http"),
        ("name=a:http", "name=a:http"),
        ("/run/x:http", "/run/x:http"),
        (":http ", ":http "),
        (":", ":"),
    ],
)
def test_a_name_after_the_colon_is_a_port(word: str, expected: str) -> None:
    assert with_numbers([word], find) == [expected]
    if expected != word:
        assert parse_target(expected)


def test_the_order_of_targets_stays() -> None:
    assert with_numbers(["nginx", ":http", "10.0.0.7"], find) == ["nginx", ":80", "10.0.0.7"]


@given(
    st.text(max_size=12) | st.from_regex(r"(\*|localhost|\[::1\]|10\.1)?:[\w,:.-]*", fullmatch=True)
)
def test_a_target_without_a_name_of_a_port_is_as_it_was(word: str) -> None:
    assert with_numbers([word], lambda _name: []) == [word]
    try:
        before = parse_target(word)
    except TargetError:
        return
    (after,) = with_numbers([word], find)
    if not any(name in word for name in PORTS):
        assert parse_target(after) == before
