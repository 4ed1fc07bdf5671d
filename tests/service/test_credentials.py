"""Secrets that systemd hands over, and what becomes of them when they are read again."""

from pathlib import Path

import pytest

from agent.address import parse
from agent.config import Config, Network
from agent.errors import ConfigFailure
from agent.secrets import Serving
from agent.service.credentials import (
    current_paths,
    find_credentials,
    is_world_readable,
    original_path,
)
from agent.stream.feed import Feed

from ..feeding import AGENT

LISTEN = (parse("127.0.0.1:0"),)
OLD, NEW = "0123456789abcdef", "fedcba9876543210"


class Places:
    """The copies, and where they come from."""

    def __init__(self, directory: Path) -> None:
        self.copies, self.source = directory / "copies", directory / "source"
        self.copies.mkdir()
        self.source.mkdir(mode=0o700)

    def start(self, **secrets: str) -> None:
        """What systemd does as it starts the service; names have ``_`` for dots."""
        for name in ("tokens", "tls.crt", "tls.key"):
            content = secrets.get(name.replace(".", "_"))
            (self.copies / name).write_text("(none)" if content is None else content)
            if content is not None:
                (self.source / name).write_text(content)

    def network(self) -> Network:
        found = find_credentials(())
        return Network(
            listen=LISTEN,
            token_file=found.get("token_file"),
            tls_cert=found.get("tls_cert"),
            tls_key=found.get("tls_key"),
        )


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    made = Places(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(made.copies))
    monkeypatch.setenv("SOCKAGENT_CREDENTIALS", str(made.source))
    return made


def test_what_stands_for_nothing_is_not_given(places: Places) -> None:
    places.start(tokens=OLD)
    assert find_credentials(()) == {"token_file": f"{places.copies}/tokens"}
    assert find_credentials(("token_file",)) == {}


def test_an_empty_file_is_given(places: Places) -> None:
    places.start(tokens="")
    assert find_credentials(()) == {"token_file": f"{places.copies}/tokens"}


@pytest.mark.parametrize(("there", "missing"), [("tls_crt", "tls.key"), ("tls_key", "tls.crt")])
def test_half_of_what_tls_takes(places: Places, there: str, missing: str) -> None:
    places.start(**{there: "x"})
    with pytest.raises(ConfigFailure) as raised:
        find_credentials(())
    name = there.replace("_", ".")
    assert str(raised.value) == (
        f"{places.source}/{name} is there, but {places.source}/{missing} is not"
    )
    assert find_credentials(("tls_cert", "tls_key")) == {}


def test_without_a_service_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    network = Network(listen=LISTEN, token_file="/x")
    assert find_credentials(()) == {}
    assert current_paths(network) is network
    assert original_path("/x") == "/x"


def test_a_copy_is_shown_as_what_it_was_made_of(places: Places) -> None:
    assert original_path(f"{places.copies}/tokens") == f"{places.source}/tokens"
    assert original_path("/x/tokens") == "/x/tokens"


def test_who_may_read_the_source_is_what_counts(places: Places) -> None:
    places.start(tokens=OLD)
    copy = f"{places.copies}/tokens"
    (places.source / "tokens").chmod(0o644)
    assert not is_world_readable(copy)  # Its directory is closed.
    places.source.chmod(0o755)
    assert is_world_readable(copy)
    (places.source / "tokens").chmod(0o640)
    assert not is_world_readable(copy)
    assert not is_world_readable("/nowhere/tokens")


# Read again.


def tokens(one: Serving) -> tuple[str, ...]:
    return one.server.access.tokens


async def test_they_are_read_where_they_came_from(places: Places) -> None:
    places.start(tokens=OLD)
    one = Serving(Config(network=places.network()), Feed(AGENT))
    assert tokens(one) == (OLD,)
    (places.source / "tokens").write_text(NEW)
    one.reload()
    assert tokens(one) == (NEW,)


@pytest.mark.parametrize("content", [None, "", "# none\n", "#"])
async def test_a_token_that_was_revoked_never_counts_again(
    places: Places, content: str | None
) -> None:
    places.start(tokens=OLD)
    one = Serving(Config(network=places.network()), Feed(AGENT))
    (places.source / "tokens").write_text(NEW)
    one.reload()
    if content is None:
        (places.source / "tokens").unlink()
    else:
        (places.source / "tokens").write_text(content)
    with pytest.raises(ConfigFailure, match=f"{places.source}/tokens"):
        one.reload()
    assert tokens(one) == (NEW,)


async def test_first_tokens_count_from_then_on(places: Places) -> None:
    places.start()
    one = Serving(Config(network=places.network()), Feed(AGENT))
    assert tokens(one) == ()
    (places.source / "tokens").write_text(NEW)
    one.reload()
    assert tokens(one) == (NEW,)


async def test_tls_begins_with_a_restart(places: Places) -> None:
    places.start(tokens=OLD)
    one = Serving(Config(network=places.network()), Feed(AGENT))
    (places.source / "tokens").write_text(NEW)
    for name in ("tls.crt", "tls.key"):
        (places.source / name).write_text("x")
    with pytest.raises(ConfigFailure, match="TLS begins with a restart"):
        one.reload()
    assert tokens(one) == (OLD,)


async def test_a_file_that_the_unit_hands_over_no_copy_of_is_none_of_ours(places: Places) -> None:
    places.start(tokens=OLD)
    (places.source / "tls-ca.crt").write_text("x")
    one = Serving(Config(network=places.network()), Feed(AGENT))
    (places.source / "tokens").write_text(NEW)
    one.reload()
    assert tokens(one) == (NEW,)


def test_an_option_goes_before_what_cannot_be_read(places: Places) -> None:
    places.start()
    (places.source / "tokens").mkdir()
    assert find_credentials(("token_file",)) == {}


async def test_an_option_is_the_administrators_own_choice(places: Places, tmp_path: Path) -> None:
    places.start(tokens=OLD)
    own = tmp_path / "own"
    own.write_text(NEW)
    one = Serving(Config(network=Network(listen=LISTEN, token_file=str(own))), Feed(AGENT))
    one.reload()
    assert tokens(one) == (NEW,)
