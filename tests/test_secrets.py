"""Files with tokens and certificates, and the rules and TLS contexts made from them."""

import os
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agent import secrets as secrets_module
from agent.address import parse_address
from agent.config import LocalPage, Network
from agent.errors import ConfigFailure
from agent.secrets import access_rules, client_tls, client_token, server_tls

TOKEN = "0123456789abcdef"
LISTEN = (parse_address("127.0.0.1:0"),)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(secrets_module, "log", lines.append)
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


def test_tokens_are_read_from_a_file(token_file: Path, logged: list[str]) -> None:
    access = access_rules(Network(listen=LISTEN, token_file=str(token_file)))
    assert access.tokens == (TOKEN, "another-token-0123")
    assert logged == []


def test_a_local_page_has_a_token_of_its_own() -> None:
    page = LocalPage(TOKEN)
    assert access_rules(Network(listen=LISTEN, local_page=page)).tokens == (TOKEN,)


def test_a_world_readable_token_file_is_warned_of(token_file: Path, logged: list[str]) -> None:
    token_file.chmod(0o644)
    token_file.parent.chmod(0o755)
    access_rules(Network(listen=LISTEN, token_file=str(token_file)))
    assert logged == [
        f"warning: token file {token_file} is readable by every user; run chmod 600 {token_file}"
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no token found; expected one on each line"),
        (b"# none\n\n", "no token found; expected one on each line"),
        (b"short\n", "tokens must have at least 16 printable characters"),
        (b"0123456789abcde\tf\n", "tokens must have at least 16 printable characters"),
        (b"0123456789abcde\xff\n", "not UTF-8 text"),
        ("0123456789abcdeä\n".encode(), "tokens must be ASCII"),
        (b"#" * 65509 + b"\n" + b"A" * 40, "larger than 65536 bytes"),
        (None, "No such file or directory"),
    ],
)
def test_an_invalid_token_file_is_rejected(
    content: bytes | None, sentence: str, tmp_path: Path, logged: list[str]
) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigFailure) as raised:
        access_rules(Network(listen=LISTEN, token_file=str(path)))
    assert str(raised.value) == f"token file {path}: {sentence}"


def test_accepted_host_names_are_those_of_the_addresses_and_options() -> None:
    listen = (parse_address("agent.example:1"), parse_address("127.0.0.1:2"))
    network = Network(listen=listen, insecure=True, allow_host=("Proxy.Example",))
    assert access_rules(network).hosts == {
        "localhost", os.uname().nodename.lower(), "agent.example", "127.0.0.1", "proxy.example"
    }  # fmt: skip


def test_origins_are_normalized() -> None:
    network = Network(listen=LISTEN, allow_origin=("HTTPS://Dash.Example/",))
    assert access_rules(network).origins == {"https://dash.example"}


def test_there_is_no_tls_without_a_certificate() -> None:
    assert server_tls(Network(listen=LISTEN)) is None


def test_a_server_certificate_does_not_require_client_certificates(pair: tuple[str, str]) -> None:
    context = server_tls(Network(listen=LISTEN, tls_cert=pair[0], tls_key=pair[1]))
    assert context
    assert context.verify_mode == ssl.CERT_NONE


def test_a_ca_requires_client_certificates(pair: tuple[str, str]) -> None:
    context = server_tls(Network(listen=LISTEN, tls_cert=pair[0], tls_key=pair[1], tls_ca=pair[0]))
    assert context
    assert context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("cert", "not in PEM format"),
        ("key", "not in PEM format"),
        ("ca", "not in PEM format"),
        ("missing", "No such file or directory"),
        ("encrypted", "the key is encrypted; expected one without a passphrase"),
        ("foreign", "the key does not belong to the certificate"),
    ],
)
def test_an_invalid_certificate_is_rejected(
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
        other.write_text("not a certificate\n")
    if broken in ("cert", "missing"):
        cert = str(other)
    elif broken == "key":
        key = str(other)
    elif broken == "ca":
        ca = str(other)
    with pytest.raises(ConfigFailure, match="certificate /") as raised:
        server_tls(Network(listen=LISTEN, tls_cert=cert, tls_key=key, tls_ca=ca))
    assert str(raised.value).endswith(f": {reason}")


def test_the_token_for_remote_agents(
    token_file: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    connect = ("ws://127.0.0.1:1",)
    assert client_token(Network(connect=connect)) is None
    monkeypatch.setenv("SOCKAGENT_TOKEN", "another-token-0123")
    assert client_token(Network(connect=connect)) == "another-token-0123"
    assert client_token(Network(connect=connect, token_file=str(token_file))) == TOKEN
    # In a relay, the token file is that of the server.
    relay = Network(connect=connect, listen=LISTEN, token_file=str(token_file))
    assert client_token(relay) == "another-token-0123"
    assert client_token(replace(relay, connect_token_file=str(token_file))) == TOKEN
    assert logged == []


def test_a_client_trusts_the_given_ca_and_presents_its_certificate(pair: tuple[str, str]) -> None:
    network = Network(connect=("wss://h",), tls_ca=pair[0], tls_cert=pair[0], tls_key=pair[1])
    context = client_tls(network)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.get_ca_certs()
    relay = Network(
        connect=("wss://h",), listen=LISTEN, connect_tls_ca=pair[0], connect_tls_cert=pair[0],
        connect_tls_key=pair[1],
    )  # fmt: skip
    assert client_tls(relay).get_ca_certs() == context.get_ca_certs()
