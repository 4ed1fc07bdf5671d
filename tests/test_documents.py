"""The documents describe everything that exists and nothing else, and their commands run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import jsonschema
import pytest

from agent.grammar import build_parser, parse
from agent.stream.filters import FILTERS
from agent.stream.schema import schema

from .documents import DOCUMENTS, ROOT, defined_names, headings, links

MAX_README_WORDS = 1200
README, CLI, RECORDS, FEED, BENCHMARKS = (
    DOCUMENTS[name]
    for name in (
        "README.md", "docs/cli.md", "docs/records.md", "docs/feed.md", "docs/benchmarks.md"
    )
)  # fmt: skip
ALL = "\n".join(DOCUMENTS.values())
# A recipe is a block after such a comment. A recipe with "follow" runs until it prints a line.
RECIPE = re.compile(r"^<!-- recipe(: follow)? -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECORD = re.compile(r"^<!-- record -->\n```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVE = re.compile(r"^<!-- serve -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BENCH = re.compile(r"^<!-- bench -->\n(.*?)^<!-- /bench -->$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```sh\n(.*?)^```$|((?:^    [^\n]*\n)+)", re.MULTILINE | re.DOTALL)
# A command with its continuation lines, up to a pipe or a redirection.
COMMAND = re.compile(r"^ *(?:SOCKAGENT_TOKEN=\w+ )?sockagent((?:\\\n|[^|>\n])*)", re.MULTILINE)
RECIPES = [(bool(follows), text) for follows, text in RECIPE.findall(ALL)]
PATIENCE_SECONDS = 30.0


def section(document: str, heading: str) -> str:
    """Return the text below a heading, with its subsections."""
    found = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", document, re.MULTILINE | re.DOTALL
    )
    assert found, f"there is no section {heading!r}"
    level = len(found[1])
    rest = document[found.start(2) :]
    end = re.search(rf"^#{{1,{level}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def first_column(text: str) -> list[str]:
    """Return the names in the first cells of the rows of all tables."""
    cells = re.findall(r"^\| ((?:`[^`|]+`(?:, )?)+) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def options() -> set[str]:
    return {name for action in build_parser()._actions for name in action.option_strings}


def properties() -> dict[str, set[str]]:
    """Return the fields of each type of record."""
    fields: dict[str, set[str]] = {}
    for record in schema()["oneOf"]:
        event = record["properties"]["event"]["const"]
        fields.setdefault(event, set()).update(record["properties"])
    return fields


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= MAX_README_WORDS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    for path, anchor in links(name):
        assert (ROOT / path).exists(), path
        assert not anchor or anchor in headings(DOCUMENTS[path]), f"{path}#{anchor}"


def test_the_readme_links_every_document() -> None:
    linked = {path for path, _anchor in links("README.md")}
    assert {name for name in DOCUMENTS if name.startswith("docs/")} <= linked


def test_every_option_is_described_and_no_other() -> None:
    filters = {f"--{name}" for name in FILTERS}
    assert set(first_column(section(CLI, "Options"))) == options() - filters
    assert set(first_column(section(CLI, "Filters"))) == filters


def test_every_query_parameter_is_described_and_no_other() -> None:
    parameters = first_column(section(FEED, "Query parameters"))
    expected = {*FILTERS, "target", "epoch", "since", "snapshot", "checkpoint"}
    assert set(parameters) == expected


def test_no_document_uses_an_option_that_does_not_exist() -> None:
    commands = re.findall(r"(?<![\w./-])sockagent((?: [^\s|`]+)+)", ALL)
    used = {word for command in commands for word in command.split() if word.startswith("--")}
    # Of sockagent events enable, and of sockagent page.
    assert used <= options() | {"--udp", "--no-open"}
    assert "--follow" in used


def test_the_commands_in_code_blocks_are_valid() -> None:
    code = "".join(fenced or indented for fenced, indented in CODE.findall(ALL))
    commands = COMMAND.findall(code)
    assert len(commands) >= 30
    for command in commands:
        parse(shlex.split(command.replace("\\\n", " "), comments=True))


def test_every_record_is_described_and_no_other() -> None:
    assert first_column(section(RECORDS, "Event types")) == list(properties())


def test_every_field_is_described_and_no_other() -> None:
    fields = set().union(*properties().values())
    assert set(first_column(section(RECORDS, "Fields"))) == fields


def test_the_records_that_a_field_belongs_to_are_right() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section(RECORDS, "Fields"), re.MULTILINE)
    records = properties()
    for field, cell in rows:
        for event in re.findall(r"`(\w+)`", cell):
            assert field in records[event], field


def test_every_field_has_one_row_in_the_table_of_other_names() -> None:
    fields = set().union(*properties().values())
    names = first_column(section(RECORDS, "Names in OpenTelemetry, ECS and OCSF"))
    assert set(names) == fields
    assert len(names) == len(fields)


def test_every_row_of_other_names_is_complete() -> None:
    table = section(RECORDS, "Names in OpenTelemetry, ECS and OCSF")
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert all(len(line.strip("|").split("|")) == 4 for line in rows)
    assert all(cell.strip() for line in rows for cell in line.strip("|").split("|"))


def test_every_exit_status_is_described() -> None:
    statuses = re.findall(r"^\| (\d+) \|", section(CLI, "Exit status"), re.MULTILINE)
    assert statuses == ["0", "1", "2", "3", "78"]


@pytest.mark.parametrize("text", RECORD.findall(ALL))
def test_a_record_in_a_document_is_valid(text: str) -> None:
    jsonschema.validate(json.loads(text), schema())


def test_the_readme_has_the_same_table_of_figures_as_the_benchmarks() -> None:
    (figures,) = BENCH.findall(BENCHMARKS)
    assert BENCH.findall(README) == [figures]


def test_there_are_recipes_and_records() -> None:
    assert len(RECIPES) >= 12
    assert RECORD.findall(README)


@pytest.fixture
def shell() -> dict[str, str]:
    """Return the environment of a user who runs a recipe: PATH leads to the installed command."""
    if shutil.which("jq") is None:
        if os.environ.get("CI"):
            pytest.fail("jq is not installed")
        pytest.skip("jq is not installed")
    scripts = sysconfig.get_path("scripts")
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("text", [text for follows, text in RECIPES if not follows])
def test_a_recipe_runs(text: str, shell: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        check=False,
        capture_output=True,
        env=shell,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    messages = [line for line in done.stderr.splitlines() if "sockagent: warning:" not in line]
    # head ends before it has read everything, and SIGPIPE then ends the command before it.
    expected = {0, 128 + signal.SIGPIPE} if "| head" in text else {0}
    assert done.returncode in expected
    assert messages == []


@pytest.mark.parametrize("text", [text for follows, text in RECIPES if follows])
def test_a_recipe_that_follows_prints(text: str, shell: dict[str, str]) -> None:
    with connections_come_and_go():
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", text],
            env=shell,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        stop = threading.Timer(PATIENCE_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        stop.start()
        with process:
            line = process.stdout.readline().decode() if process.stdout else ""
            stop.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            errors = process.stderr.read().decode() if process.stderr else ""
    assert line.strip()
    assert "error" not in errors


@contextmanager
def connections_come_and_go() -> Iterator[None]:
    """Open local TCP connections, each for longer than two polls, and close them."""
    ended = threading.Event()

    def come_and_go() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            held: deque[tuple[float, socket.socket, socket.socket]] = deque()
            while not ended.wait(0.3):
                client = socket.create_connection(listener.getsockname())
                held.append((time.monotonic(), client, listener.accept()[0]))
                while held and held[0][0] < time.monotonic() - 2.5:
                    for end in held.popleft()[1:]:
                        end.close()
            for _since, *ends in held:
                for end in ends:
                    end.close()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_the_quick_start_serves(shell: dict[str, str]) -> None:
    (command,) = SERVE.findall(README)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    process = subprocess.Popen(
        shlex.split(command.replace("8765", str(port))),
        env=shell,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            end = time.monotonic() + PATIENCE_SECONDS
            while not is_healthy(port):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)
        finally:
            process.terminate()
    assert process.returncode == 0


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5.0) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except urllib.error.URLError:
        return False


def test_every_metric_is_described() -> None:
    source = (ROOT / "agent" / "publish" / "http" / "metrics.py").read_text(encoding="utf-8")
    exported = set(re.findall(r'"(sockagent_[a-z_]+)"', source))
    described = {name.removesuffix("_total") for name in first_column(section(FEED, "Metrics"))}
    assert described == exported


def test_the_architecture_names_code_that_exists() -> None:
    text = re.sub(
        r"^```.*?^```$", "", DOCUMENTS["docs/architecture.md"], flags=re.MULTILINE | re.DOTALL
    )
    quoted = set(re.findall(r"`([^`\n]+)`", text))
    files = {name for name in quoted if re.fullmatch(r"[\w/]+(\.py|/)", name)}
    paths = [f"/{path.relative_to(ROOT)}{'/' * path.is_dir()}" for path in ROOT.glob("*/**/*")]
    assert len(files) > 20
    assert not [name for name in files if not any(path.endswith(f"/{name}") for path in paths)]
    symbols = {name for name in quoted - files if re.fullmatch(r"[A-Z]\w*(\.\w+)?|\w+_\w+", name)}
    assert len(symbols) > 40
    assert not symbols - defined_names()
