"""The command ``sockagent page``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent import app
from agent.address import parse_address
from agent.cli import main
from agent.config import Config, LocalPage, Network, View
from agent.errors import CommandError, RuntimeFailure
from agent.page_command import HELP, local_page, parse_page
from agent.publish.http.pages import PLAIN, Reply, fixed
from agent.serving import recording_server
from agent.stream.feed import Feed
from agent.stream.filters import FILTERS, Filter

from .feeding import AGENT

TOKEN = "0123456789abcdef0123456789abcdef"


class Run:
    """Stands for the agent: records its settings."""

    def __init__(self) -> None:
        self.configs: list[Config] = []

    def __call__(self, config: Config) -> bool:
        self.configs.append(config)
        return False


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run()
    monkeypatch.setattr("agent.app.run", run)
    return run


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    for module in ("log", "serving"):
        monkeypatch.setattr(f"agent.{module}.log", lines.append)
    return lines


def settings(agent: Run, line: str) -> tuple[Config, LocalPage]:
    assert main(["page", *line.split()]) == 0
    config = agent.configs.pop()
    assert config.network.local_page is not None
    return config, config.network.local_page


@pytest.mark.parametrize("line", ["-h", "--help", "--no-open --help", "nginx -h"])
def test_help(line: str, agent: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", *line.split()]) == 0
    assert capsys.readouterr().out == HELP
    assert agent.configs == []
    assert all(len(text) <= 100 for text in HELP.splitlines())


def test_it_listens_at_a_free_port_of_loopback_with_a_new_token(agent: Run) -> None:
    config, page = settings(agent, "")
    assert config.network.listen == (parse_address("127.0.0.1:0"),)
    assert config.is_continuous
    assert not config.follow
    assert len(page.token) >= 32
    assert page.token.replace("-", "").replace("_", "").isalnum()
    assert settings(agent, "")[1].token != page.token
    assert page.token not in repr(config)


def test_it_takes_the_options_that_say_what_is_read(agent: Run) -> None:
    line = (
        "--interval 0.5 --sweep 9 --stats 60 --cmdline --proc /p --source procfs --events on "
        "--events-udp --max-user-holdings 5 -t --comm sshd :80 port!=22"
    )
    config, _page = settings(agent, line)
    assert config.filter == Filter(
        {"proto": ["tcp"], "comm": ["sshd"], "port": ["80"], "port!": ["22"]}
    )
    assert config == Config(
        interval=0.5, sweep=9, stats=60, cmdline=True, proc="/p", source="procfs", events="on",
        events_udp=True, max_user_holdings=5, filter=config.filter, network=config.network,
        view=View(targets=True),
    )  # fmt: skip


def test_it_takes_the_options_that_say_how_to_reach_other_agents(agent: Run) -> None:
    line = "--connect wss://a --connect nats://b/p --since start --nats-creds n --insecure :80"
    files = ("--token-file t", "--tls-cert c", "--tls-key k", "--tls-ca a")
    for prefix in ("", "connect-"):
        given = [one.replace("--", f"--{prefix}") for one in files]
        config, page = settings(agent, " ".join((line, *given)))
        assert config.network == Network(
            listen=(parse_address("127.0.0.1:0"),),
            connect=("wss://a", "nats://b/p"),
            nats_creds="n", insecure=True, local_page=page, connect_token_file="t",
            connect_tls_cert="c", connect_tls_key="k", connect_tls_ca="a",
        )  # fmt: skip
        assert config.network.client == ("t", "c", "k", "a")
        assert config.fleet.since == "start"
        assert config.filter == Filter({"port": ["80"]})
        assert not config.follow


@pytest.mark.parametrize("name", FILTERS)
def test_it_takes_every_filter(name: str) -> None:
    assert parse_page([f"--{name}", "x"]) == ({name: ["x"]}, True)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--listen unix:/s", "page: --listen does not apply"),
        ("--token-file t", "page: --token-file requires --connect"),
        ("--tls-cert t", "page: --tls-cert requires --connect"),
        ("--connect-tls-ca t", "page: --connect-tls-ca requires --connect"),
        ("--since now", "page: --since requires --connect nats://HOST:PORT or tls://HOST:PORT"),
        (
            "--connect ws://h --since now",
            "page: --since requires --connect nats://HOST:PORT or tls://HOST:PORT",
        ),
        (
            "--connect ws://h --insecure",
            "page: --insecure requires --connect nats://HOST:PORT or tls://HOST:PORT",
        ),
        (
            "--connect ws://h --token-file t --connect-token-file u",
            "page: --connect-token-file cannot be combined with --token-file; give one of them",
        ),
        ("--connect ws://h --record d", "page: --record does not apply"),
        ("--connect ws://h --read x", "page: --read cannot be combined with --connect"),
        ("--max-clients 5", "page: --max-clients does not apply"),
        ("--no-page", "page: --no-page does not apply"),
        ("--no-header", "page: --no-header does not apply"),
        ("--follow", "page: --follow does not apply"),
        ("-a", "page: --all does not apply"),
        ("-o json", "page: --output does not apply"),
        ("--read x --at -5m", "page: --at does not apply"),
        ("--read x nginx", "page: --read cannot be combined with targets; filter in the page"),
        (
            "--read x --proto tcp",
            "page: --read cannot be combined with --proto; filter in the page",
        ),
        ("--read x --interval 1", "page: --read cannot be combined with --interval; "),
        ("--no-opne", "there is no option --no-opne"),
    ],
)
def test_other_options_are_wrong_usage(
    line: str, sentence: str, agent: Run, logged: list[str]
) -> None:
    with pytest.raises(CommandError):
        parse_page(line.split())
    assert main(["page", *line.split()]) == 2
    assert logged[0].startswith(sentence)
    assert agent.configs == []


@pytest.mark.parametrize(
    "line",
    [
        "--interval 0",
        "--port x",
        "--events off --events-udp",
        ":x",
        "--connect http://h",
        "--connect ws://h --connect ws://h",
        "--connect ws://h --interval 2",
        "--connect ws://h --tls-cert c",
        "--connect nats://192.0.2.1",
    ],
)
def test_wrong_values_are_wrong_usage(line: str, agent: Run, logged: list[str]) -> None:
    assert main(["page", *line.split()]) == 2
    assert agent.configs == []
    assert len(logged) == 1


def test_the_file_for_the_browser_is_removed_at_the_end(tmp_path: Path) -> None:
    with local_page({"XDG_RUNTIME_DIR": str(tmp_path)}, opens=True) as page:
        assert page.redirect is not None
        assert Path(page.redirect).parent == tmp_path
        assert page.token not in page.redirect
        Path(page.redirect).touch()
    assert list(tmp_path.iterdir()) == []
    with local_page({}, opens=True) as page:  # It is written only for a browser.
        assert page.redirect is not None


def test_no_open(agent: Run) -> None:
    config, page = settings(agent, "--no-open nginx")
    assert page.redirect is None
    assert config.filter == Filter({"name": ["nginx"]})
    assert settings(agent, "nginx")[1].redirect is not None


def test_a_recording_that_cannot_be_opened_is_one_line(
    logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.app.require_descriptors", lambda: None)
    monkeypatch.setattr("agent.app.handle_stop", lambda *_arguments, **_options: None)
    monkeypatch.setattr("agent.app.capture_libraries", lambda: None)
    assert main(["page", "--no-open", "--read", "/nowhere.ndjson"]) == 1
    assert logged == ["/nowhere.ndjson: No such file or directory"]


async def get(port: int, path: str, *headers: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def test_a_recording_is_served_with_the_page_and_no_feed(
    logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(
        listen=(parse_address("127.0.0.1:0"),), local_page=LocalPage(TOKEN, "/run/redirect.html")
    )
    urls: list[tuple[str, str]] = []
    monkeypatch.setattr("agent.serving.open_page", lambda url, path, _env: urls.append((url, path)))
    feed = Feed(AGENT)
    server = recording_server(network, feed, fixed(Reply(200, PLAIN, b"records\n")))
    (line,) = logged
    before, url = line.rsplit(" ", 1)
    port = int(url.split(":")[2].split("/")[0])
    assert before == "until ^C, the page is at"
    assert url == f"http://127.0.0.1:{port}/?recording#token={TOKEN}"
    assert urls == [(url, "/run/redirect.html")]
    running = asyncio.create_task(server.run())
    bearer = f"Authorization: Bearer {TOKEN}"
    assert (await get(port, "/?recording"))[0] == 200
    assert await get(port, "/recording") == (401, b"token required\n")
    assert await get(port, "/recording", bearer) == (200, b"records\n")
    assert (await get(port, "/events"))[0] == 401
    status, sentence = await get(port, "/events", bearer)
    assert (status, sentence) == (404, b"this is a recording, at /recording; there is no feed\n")
    feed.stop()
    await server.stop()
    running.cancel()


async def test_reading_a_recording_ends_with_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = asyncio.Event()
    waiting = asyncio.Event()
    loop = asyncio.get_running_loop()

    def never(_path: str) -> object:
        loop.call_soon_threadsafe(waiting.set)
        asyncio.run_coroutine_threadsafe(stop.wait(), loop).result()
        raise RuntimeFailure("the file was read after the end")

    monkeypatch.setattr("agent.publish.http.recordings.recording_page", never)
    network = Network(listen=(parse_address("127.0.0.1:0"),), local_page=LocalPage(TOKEN))
    config = Config(network=network, view=View(read="-"))
    serving = asyncio.create_task(app._serve_recording(config, "-", stop))
    await waiting.wait()
    stop.set()
    await serving
