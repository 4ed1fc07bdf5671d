"""The subject below which a reader of a fleet gets its answers."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.broker_login import reader_inbox
from agent.errors import ConfigFailure


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
