"""The configured server: files that it reads again, and the filter file."""

from functools import partial
from pathlib import Path

import pytest

from agent.address import parse_address
from agent.config import Config, Network
from agent.errors import ConfigFailure
from agent.serving import ConfiguredServer, agent_pages, read_filter
from agent.stream.feed import Feed
from agent.stream.filters import Filter

from .feeding import AGENT

TOKEN, OTHER_TOKEN = "0123456789abcdef", "another-token-0123"
LISTEN = (parse_address("127.0.0.1:0"),)


@pytest.fixture(autouse=True)
def no_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not open sockets to listen on."""
    monkeypatch.setattr("agent.serving.listen", lambda *_: [])


async def test_a_reload_replaces_the_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    path.chmod(0o600)
    config = Config(network=Network(listen=LISTEN, token_file=str(path)))
    configured = ConfiguredServer(config, Feed(AGENT), {})
    path.write_text(OTHER_TOKEN)
    assert configured.server.rules.access.tokens == (TOKEN,)
    configured.reload()
    assert configured.server.rules.access.tokens == (OTHER_TOKEN,)
    path.write_text("short")
    with pytest.raises(ConfigFailure):
        configured.reload()
    assert configured.server.rules.access.tokens == (OTHER_TOKEN,)


@pytest.mark.parametrize("page", [True, False])
async def test_the_page_can_be_turned_off(page: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[str] = []
    monkeypatch.setattr("agent.serving.Server", lambda *arguments: served.extend(arguments[-1]))
    feed = Feed(AGENT)
    pages = partial(agent_pages, feed, 1.0)
    ConfiguredServer(Config(network=Network(listen=LISTEN, page=page)), feed, {}, pages)
    assert ("/" in served, "/favicon.svg" in served) == (page, page)
    assert {"/healthz", "/metrics"} <= set(served)


def test_filters_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "filters"
    path.write_text("# ours\nproto=tcp,udp\n\nport = 80\nport=443\ncomm != sshd\nuser!=a,b\n")
    assert read_filter(str(path)) == Filter(
        {"proto": ["tcp", "udp"], "port": ["80", "443"], "comm!": ["sshd"], "user!": ["a", "b"]}
    )
    assert read_filter(None) == Filter()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"port=x\n",
            ": port: 'x' is not a port or range of ports; expected for example 443 or 8000-8100",
        ),
        (b"# ours\n0123456789abcdef=1\n", ", line 2: not a filter; expected for example proto=tcp"),
        (b"colour!=red\n", ", line 1: not a filter; expected for example proto=tcp"),
        (b"proto unix\n", ", line 1: not a filter; expected for example proto=tcp"),
        (b"proto=\n", ": proto: empty value; expected for example tcp"),
        (b"", ": no filter found; expected for example proto=tcp"),
        (b"# none\n\n", ": no filter found; expected for example proto=tcp"),
        (b"#" * 65536 + b"\nproto=tcp", ": larger than 65536 bytes"),
        (b"\xff\n", ": not UTF-8 text"),
        (None, ": No such file or directory"),
    ],
)
def test_an_invalid_filter_file_is_rejected(
    content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "filters"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigFailure) as raised:
        read_filter(str(path))
    assert str(raised.value) == f"filter file {path}{sentence}"
