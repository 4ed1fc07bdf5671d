"""How a client of a broker identifies itself, and what is said of errors."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

import pytest

from agent.broker_login import Reason, explain, is_denial, login, new_client
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


def test_asyncio_does_not_warn_of_each_encrypted_connection_that_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    new_client(is_encrypted=True)
    logger = logging.getLogger("asyncio")
    logger.warning("returning true from eof_received() has no effect when using ssl")
    logger.warning("another warning")
    assert caplog.messages == ["another warning"]
