"""How a client of a broker identifies itself, where its answers arrive, and what errors mean."""

from __future__ import annotations

import json
import os
import ssl
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.broker_answers import UnusableCredentials
from agent.broker_login import Entry, Reason, explain, is_denial, login, reader_inbox
from agent.errors import ConfigFailure

errors = pytest.importorskip("nats.errors", reason="nats-py is not installed")


def unverified() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] (_ssl.c:1006)")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"),
         Reason("Connection refused")),
        (OSError("Multiple exceptions: 1, 2"), Reason("Multiple exceptions: 1, 2")),
        (unverified(), Reason("self-signed certificate", is_lasting=True)),
        (TimeoutError(), Reason("the broker does not answer")),
        (errors.TimeoutError(), Reason("the broker does not answer")),
        (errors.SecureConnWantedError(), Reason("the broker does not use TLS", is_lasting=True)),
        (errors.Error("nats: 'Authorization Violation'"),
         Reason("the broker refuses the credentials: Authorization Violation", is_lasting=True)),
        (errors.Error("nats: user authentication expired"),
         Reason("the broker refuses the credentials: user authentication expired",
                is_lasting=True)),
        (errors.Error('nats: permissions violation for publish to "a.b"'),
         Reason('the broker does not permit it: permissions violation for publish to "a.b"',
                is_lasting=True, is_lost=False)),
        (errors.Error('nats: permissions violation for subscription to "_inbox.a.*"'),
         Reason('the broker does not permit it: permissions violation for subscription to '
                '"_inbox.a.*"', is_lasting=True)),
        (None, Reason("connection lost")),
        (errors.Error(), Reason("connection lost")),
    ],
)  # fmt: skip
def test_errors_are_explained(error: Exception | None, expected: Reason) -> None:
    assert explain(error, is_identified=True) == expected
    assert error is None or is_denial(error) == ("does not permit" in expected.text)


def test_who_gives_no_credentials_is_told_how() -> None:
    error = errors.Error("nats: 'Authorization Violation'")
    assert explain(error, is_identified=False).text == (
        "the broker requires credentials; give a file with --nats-creds"
    )


@pytest.mark.parametrize(
    ("content", "user", "expected"),
    [
        ("secret\n", "me", {"user": "me", "password": "secret"}),
        ("secret\n", None, {"token": "secret"}),
        ("(none)\n", "me", {}),
    ],
)
def test_secrets_of_a_file(
    tmp_path: Path, content: str, user: str | None, expected: dict[str, str]
) -> None:
    path = tmp_path / "secret"
    path.write_text(content)
    assert login(str(path), user) == expected


def test_without_a_file_a_user_has_no_password() -> None:
    assert login(None, None) == {}
    assert login(None, "me") == {"user": "me", "password": ""}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\n", "the file is empty"),
        (b"\xff", "not a text file"),
        (None, "No such file or directory"),
    ],
)
def test_files_without_credentials(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigFailure, match=f"^credentials {path}: {reason}$"):
        login(os.fspath(path), "me")


def credentials(claims: object) -> str:
    """A file as nsc writes it, with a token that is not signed."""
    text = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return (
        f"-----BEGIN NATS USER JWT-----\neyJ0eXAi.{text}.c2ln-_\n------END NATS USER JWT------\n\n"
        "-----BEGIN USER NKEY SEED-----\nSUAX\n------END USER NKEY SEED------\n"
    )


@pytest.mark.parametrize(
    ("user", "inbox"),
    [
        (None, "_INBOX"),
        ("reader", "_INBOX.reader"),
        ("a%2Eexample", "_INBOX.a%2Eexample"),
        ("team.reader", "_INBOX.team.reader"),
        ("two words", "_INBOX"),
        ("all.>", "_INBOX"),
        ("*", "_INBOX"),
        (".a", "_INBOX"),
    ],
)
def test_the_inbox_of_a_user(user: str | None, inbox: str) -> None:
    assert reader_inbox(None, user) == inbox


@pytest.mark.parametrize(
    ("text", "inbox"),
    [
        (credentials({"name": "grafana", "sub": "U"}), "_INBOX.grafana"),
        (credentials({"name": "ü"}), "_INBOX.ü"),
        (credentials({"name": 7}), "_INBOX"),
        (credentials({}), "_INBOX"),
        (credentials([]), "_INBOX"),
        (credentials({"name": "a"}).replace(".", "!"), "_INBOX"),
        ("a-token\n", "_INBOX"),
    ],
)
def test_the_inbox_of_a_file_of_credentials(tmp_path: Path, text: str, inbox: str) -> None:
    path = tmp_path / "reader.creds"
    path.write_text(text)
    assert reader_inbox(str(path), None) == inbox
    assert reader_inbox(str(path), "named") == "_INBOX.named"


@given(st.text(alphabet="ab=_-.0 \n", max_size=40))
def test_any_token_in_a_file_of_credentials(
    tmp_path_factory: pytest.TempPathFactory, token: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.creds"
    path.write_text(f"-----BEGIN NATS USER JWT-----\n{token}\n")
    assert reader_inbox(str(path), None) == "_INBOX"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigFailure, match="No such file"):
        reader_inbox(str(tmp_path / "none"), None)


@pytest.mark.parametrize(
    ("error", "credentials", "raised", "reason"),
    [
        (unverified(), None, ssl.SSLCertVerificationError, None),  # It is a ValueError, too.
        (unverified(), "me.creds", ssl.SSLCertVerificationError, None),
        (
            UnusableCredentials("no seed"),
            "me.creds",
            ConfigFailure,
            "credentials me.creds: no seed",
        ),
        (
            ValueError("label too long"),
            "me.creds",
            ConfigFailure,
            "tls://b, tls://c: label too long",
        ),
        (ValueError("label too long"), None, ConfigFailure, "tls://b, tls://c: label too long"),
    ],
)
async def test_what_the_library_cannot_use_is_a_wrong_configuration(
    error: Exception, credentials: str | None, raised: type[Exception], reason: str | None
) -> None:
    class Client:
        async def connect(self, *_servers: object, **_options: object) -> None:
            raise error

    async def ignore(*_: object) -> None:
        pass

    entry = Entry(("tls://b", "tls://c"), None, credentials)
    with pytest.raises(raised) as caught:
        await entry.connect(Client(), ignore, ignore)
    assert str(caught.value) == (reason or str(error))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_credentials_that_are_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "secret"
    make(path)
    with pytest.raises(ConfigFailure, match=f"^credentials {path}: not a regular file$"):
        login(str(path), None)
