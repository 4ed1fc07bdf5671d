"""Files of secrets, and the rules that come of them."""

import os
import ssl
import subprocess
from pathlib import Path

import pytest

from agent import secrets as serving
from agent.address import parse_address
from agent.config import Config, Network
from agent.errors import ConfigFailure
from agent.secrets import Serving, access_of, filter_of, remotes, tls_of
from agent.stream.feed import Feed
from agent.stream.filters import Filter

from .feeding import AGENT

TOKEN = "0123456789abcdef"
LISTEN = (parse_address("127.0.0.1:0"),)


@pytest.fixture(autouse=True)
def no_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not open sockets to listen on."""
    monkeypatch.setattr("agent.secrets.listeners_of", lambda *_: [])


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(serving, "log", lines.append)
    return lines


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# ours\n{TOKEN}\nanother-token-0123\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    directory = tmp_path_factory.mktemp("tls")
    key, cert = str(directory / "key.pem"), str(directory / "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_the_tokens_of_a_file(token_file: Path, said: list[str]) -> None:
    access = access_of(Network(listen=LISTEN, token_file=str(token_file)))
    assert access.tokens == (TOKEN, "another-token-0123")
    assert said == []


def test_a_file_that_everybody_may_read_is_warned_of(token_file: Path, said: list[str]) -> None:
    token_file.chmod(0o644)
    token_file.parent.chmod(0o755)
    access_of(Network(listen=LISTEN, token_file=str(token_file)))
    assert said == [f"warning: everybody may read the token file {token_file}"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "there is no token in it"),
        (b"# none\n\n", "there is no token in it"),
        (b"short\n", "a token has at least 16 printable characters"),
        (b"0123456789abcde\tf\n", "a token has at least 16 printable characters"),
        (b"0123456789abcde\xff\n", "it is no UTF-8"),
        ("0123456789abcdeä\n".encode(), "tokens are ASCII"),
        (b"#" * 65509 + b"\n" + b"A" * 40, "it is longer than 65536 bytes"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_is_none(
    content: bytes | None, sentence: str, tmp_path: Path, said: list[str]
) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigFailure) as raised:
        access_of(Network(listen=LISTEN, token_file=str(path)))
    assert str(raised.value) == f"the token file {path}: {sentence}"


def test_the_names_of_this_agent() -> None:
    listen = (parse_address("agent.example:1"), parse_address("127.0.0.1:2"))
    network = Network(listen=listen, insecure=True, allow_host=("Proxy.Example",))
    assert access_of(network).hosts == {
        "localhost", os.uname().nodename.lower(), "agent.example", "127.0.0.1", "proxy.example"
    }  # fmt: skip


def test_origins_are_compared_in_one_form() -> None:
    network = Network(listen=LISTEN, allow_origin=("HTTPS://Dash.Example/",))
    assert access_of(network).origins == {"https://dash.example"}


def test_without_a_certificate_there_is_no_tls() -> None:
    assert tls_of(Network(listen=LISTEN)) is None


def test_a_certificate(pair: tuple[str, str]) -> None:
    context = tls_of(Network(listen=LISTEN, tls_cert=pair[0], tls_key=pair[1]))
    assert context
    assert context.verify_mode == ssl.CERT_NONE


def test_with_a_ca_clients_need_a_certificate(pair: tuple[str, str]) -> None:
    context = tls_of(Network(listen=LISTEN, tls_cert=pair[0], tls_key=pair[1], tls_ca=pair[0]))
    assert context
    assert context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("cert", "what it should hold in PEM is not there"),
        ("key", "what it should hold in PEM is not there"),
        ("ca", "what it should hold in PEM is not there"),
        ("missing", "No such file or directory"),
        ("encrypted", "its key is encrypted"),
        ("foreign", "the key is not that of the certificate"),
    ],
)
def test_what_is_no_certificate(
    broken: str, reason: str, pair: tuple[str, str], tmp_path: Path
) -> None:
    cert, key = pair
    other = tmp_path / "other.pem"
    ca = None
    if broken == "encrypted":
        subprocess.run(
            ["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:x", "-out", str(other)],
            check=True, capture_output=True,
        )  # fmt: skip
        key = str(other)
    elif broken == "foreign":
        subprocess.run(
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(other)],
            check=True, capture_output=True,
        )  # fmt: skip
        key = str(other)
    elif broken != "missing":
        other.write_text("this is none\n")
    if broken in ("cert", "missing"):
        cert = str(other)
    elif broken == "key":
        key = str(other)
    elif broken == "ca":
        ca = str(other)
    with pytest.raises(ConfigFailure, match="the certificate /") as raised:
        tls_of(Network(listen=LISTEN, tls_cert=cert, tls_key=key, tls_ca=ca))
    assert str(raised.value).endswith(f": {reason}")


def test_whom_to_follow(token_file: Path, said: list[str]) -> None:
    network = Network(connect=("ws://127.0.0.1:1", "unix:/x"), token_file=str(token_file))
    chosen = Filter({"port": ["443", "80"], "proto": ["tcp"]})
    one, two = remotes(Config(filter=chosen, network=network))
    assert (one.url, one.token, one.tls, one.snapshots) == ("ws://127.0.0.1:1", TOKEN, None, True)
    assert sorted(one.query) == [("port", "443"), ("port", "80"), ("proto", "tcp")]
    assert two.unix_path == "/x"
    assert said == []


def test_without_snapshots() -> None:
    network = Network(connect=("ws://127.0.0.1:1",))
    (one,) = remotes(Config(filter=Filter({"event": ["open"]}), network=network))
    assert not one.snapshots


def test_a_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKAGENT_TOKEN", TOKEN)
    (one,) = remotes(Config(network=Network(connect=("ws://localhost:1",))))
    assert one.token == TOKEN


def test_a_token_in_the_clear_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setenv("SOCKAGENT_TOKEN", TOKEN)
    remotes(Config(network=Network(connect=("ws://192.0.2.1:1", "wss://192.0.2.1:1"))))
    assert len(said) == 1
    assert said[0].startswith("warning: the token goes to ws://192.0.2.1:1 ")
    assert TOKEN not in said[0]


# Read again.

ANOTHER = "another-token-0123"


async def test_new_tokens_count_for_who_comes(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    one = Serving(Config(network=Network(listen=LISTEN, token_file=str(path))), Feed(AGENT))
    path.write_text(ANOTHER)
    assert one.server.rules.access.tokens == (TOKEN,)
    one.reload()
    assert one.server.rules.access.tokens == (ANOTHER,)
    path.write_text("short")
    with pytest.raises(ConfigFailure):
        one.reload()
    assert one.server.rules.access.tokens == (ANOTHER,)


def test_filters_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "filters"
    path.write_text("# ours\nproto=tcp,udp\n\nport = 80\nport=443\n")
    found = filter_of(Network(listen=LISTEN, filter_file=str(path)))
    assert found == Filter({"proto": ["tcp", "udp"], "port": ["80", "443"]})
    assert filter_of(Network(listen=LISTEN)) == Filter()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"port=x\n",
            ": port: 'x' is not a port or range of ports; expected for example 443 or 8000-8100",
        ),
        (b"# ours\n0123456789abcdef=1\n", ", line 2: it is no filter, as proto=tcp is"),
        (b"proto unix\n", ", line 1: it is no filter, as proto=tcp is"),
        (b"proto=\n", ": proto: empty value; expected for example tcp"),
        (b"", ": there is no filter in it"),
        (b"# none\n\n", ": there is no filter in it"),
        (b"#" * 65536 + b"\nproto=tcp", ": it is longer than 65536 bytes"),
        (b"\xff\n", ": it is no UTF-8"),
        (None, ": No such file or directory"),
    ],
)
def test_a_filter_file_that_is_none(content: bytes | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "filters"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigFailure) as raised:
        filter_of(Network(listen=LISTEN, filter_file=str(path)))
    assert str(raised.value) == f"the filter file {path}{sentence}"
