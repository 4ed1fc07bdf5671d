"""Secrets that systemd copies for the service, and how a reload reads the originals."""

from pathlib import Path

import pytest

from agent.address import parse_address
from agent.config import Config, Network
from agent.errors import ConfigFailure
from agent.service.credentials import (
    CredentialPaths,
    current_paths,
    find_credentials,
    is_world_readable,
    original_path,
)
from agent.serving import ConfiguredServer
from agent.stream.feed import Feed

from ..feeding import AGENT

LISTEN = (parse_address("127.0.0.1:0"),)
OLD, NEW = "0123456789abcdef", "fedcba9876543210"


class Directories:
    """The directories of the copies and of the originals."""

    def __init__(self, directory: Path) -> None:
        self.copies, self.source = directory / "copies", directory / "source"
        self.copies.mkdir()
        self.source.mkdir(mode=0o700)

    def start(self, **secrets: str) -> None:
        """Copy the secrets as systemd does at the start; names have ``_`` in place of dots."""
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


@pytest.fixture(autouse=True)
def no_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not open sockets to listen on."""
    monkeypatch.setattr("agent.serving.listen", lambda *_: [])


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Directories:
    made = Directories(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(made.copies))
    monkeypatch.setenv("SOCKAGENT_CREDENTIALS", str(made.source))
    return made


def test_the_placeholder_of_a_missing_file_is_not_a_credential(directories: Directories) -> None:
    directories.start(tokens=OLD)
    assert find_credentials(()) == {"token_file": f"{directories.copies}/tokens"}
    assert find_credentials(("token_file",)) == {}


def test_an_empty_file_is_a_credential(directories: Directories) -> None:
    directories.start(tokens="")
    assert find_credentials(()) == {"token_file": f"{directories.copies}/tokens"}


@pytest.mark.parametrize(("there", "missing"), [("tls_crt", "tls.key"), ("tls_key", "tls.crt")])
def test_certificate_and_key_require_each_other(
    directories: Directories, there: str, missing: str
) -> None:
    directories.start(**{there: "x"})
    with pytest.raises(ConfigFailure) as raised:
        find_credentials(())
    source, name = directories.source, there.replace("_", ".")
    assert str(raised.value) == (
        f"{source}/{name} requires {source}/{missing}, which does not exist"
    )
    assert find_credentials(("tls_cert", "tls_key")) == {}


def test_outside_a_service_there_are_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    paths = CredentialPaths("/x", None, None, None)
    assert find_credentials(()) == {}
    assert current_paths(paths) is paths
    assert original_path("/x") == "/x"


def test_messages_name_the_original_of_a_copy(directories: Directories) -> None:
    assert original_path(f"{directories.copies}/tokens") == f"{directories.source}/tokens"
    assert original_path("/x/tokens") == "/x/tokens"


def test_permissions_of_the_original_decide(directories: Directories) -> None:
    directories.start(tokens=OLD)
    copy = f"{directories.copies}/tokens"
    (directories.source / "tokens").chmod(0o644)
    assert not is_world_readable(copy)  # Others cannot enter its directory.
    directories.source.chmod(0o755)
    assert is_world_readable(copy)
    (directories.source / "tokens").chmod(0o640)
    assert not is_world_readable(copy)
    assert not is_world_readable("/nowhere/tokens")


# Reload.


def tokens(one: ConfiguredServer) -> tuple[str, ...]:
    return one.server.rules.access.tokens


async def test_a_reload_reads_the_originals(directories: Directories) -> None:
    directories.start(tokens=OLD)
    one = ConfiguredServer(Config(network=directories.network()), Feed(AGENT), {})
    assert tokens(one) == (OLD,)
    (directories.source / "tokens").write_text(NEW)
    one.reload()
    assert tokens(one) == (NEW,)


@pytest.mark.parametrize("content", [None, "", "# none\n", "#"])
async def test_a_revoked_token_stays_invalid(directories: Directories, content: str | None) -> None:
    directories.start(tokens=OLD)
    one = ConfiguredServer(Config(network=directories.network()), Feed(AGENT), {})
    (directories.source / "tokens").write_text(NEW)
    one.reload()
    if content is None:
        (directories.source / "tokens").unlink()
    else:
        (directories.source / "tokens").write_text(content)
    with pytest.raises(ConfigFailure, match=f"{directories.source}/tokens"):
        one.reload()
    assert tokens(one) == (NEW,)


async def test_a_reload_adds_the_first_tokens(directories: Directories) -> None:
    directories.start()
    one = ConfiguredServer(Config(network=directories.network()), Feed(AGENT), {})
    assert tokens(one) == ()
    (directories.source / "tokens").write_text(NEW)
    one.reload()
    assert tokens(one) == (NEW,)


async def test_enabling_tls_requires_a_restart(directories: Directories) -> None:
    directories.start(tokens=OLD)
    one = ConfiguredServer(Config(network=directories.network()), Feed(AGENT), {})
    (directories.source / "tokens").write_text(NEW)
    for name in ("tls.crt", "tls.key"):
        (directories.source / name).write_text("x")
    with pytest.raises(ConfigFailure, match=r"tls\.crt is new; restart the service to use it"):
        one.reload()
    assert tokens(one) == (OLD,)


async def test_a_file_that_the_unit_does_not_load_is_ignored(directories: Directories) -> None:
    directories.start(tokens=OLD)
    (directories.source / "tls-ca.crt").write_text("x")
    one = ConfiguredServer(Config(network=directories.network()), Feed(AGENT), {})
    (directories.source / "tokens").write_text(NEW)
    one.reload()
    assert tokens(one) == (NEW,)


def test_an_option_overrides_an_unreadable_credential(directories: Directories) -> None:
    directories.start()
    (directories.source / "tokens").mkdir()
    assert find_credentials(("token_file",)) == {}


async def test_a_reload_keeps_the_path_of_an_option(
    directories: Directories, tmp_path: Path
) -> None:
    directories.start(tokens=OLD)
    own = tmp_path / "own"
    own.write_text(NEW)
    network = Network(listen=LISTEN, token_file=str(own))
    one = ConfiguredServer(Config(network=network), Feed(AGENT), {})
    one.reload()
    assert tokens(one) == (NEW,)
