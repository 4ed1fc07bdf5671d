"""The documents name everything there is, nothing that there is not, and their recipes run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest

from agent.cli import build_parser
from agent.stream.filters import FILTERS
from agent.stream.schema import schema

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIELDS = (ROOT / "docs" / "fields.md").read_text(encoding="utf-8")
# A recipe is a block behind such a mark; one that follows is run until it prints a line.
RECIPE = re.compile(r"^<!-- recipe(: follow)? -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECORD = re.compile(r"^<!-- record -->\n```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECIPES = [(bool(follows), text) for follows, text in RECIPE.findall(README)]
PATIENCE_SECONDS = 30.0


def section(document: str, heading: str) -> str:
    """What stands under a heading, down to the next heading of any level."""
    found = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", document, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {heading!r}"
    return found[1]


def first_column(text: str) -> list[str]:
    """The names in the first cells of a table's rows."""
    cells = re.findall(r"^\| ((?:`[^`|]+`(?:, )?)+) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def options() -> set[str]:
    return {name for action in build_parser()._actions for name in action.option_strings}


def properties() -> dict[str, set[str]]:
    """The fields of each kind of record."""
    fields: dict[str, set[str]] = {}
    for record in schema()["oneOf"]:
        event = record["properties"]["event"]["const"]
        fields.setdefault(event, set()).update(record["properties"])
    return fields


def test_the_readme_names_every_option_and_no_other() -> None:
    filters = {f"--{name}" for name in FILTERS}
    assert set(first_column(section(README, "Options"))) == options() - filters
    assert set(first_column(section(README, "Filters"))) == filters


def test_no_document_uses_an_option_that_there_is_not() -> None:
    commands = re.findall(r"\bsockagent((?: [^\s|`]+)+)", README)
    used = {word for command in commands for word in command.split() if word.startswith("--")}
    assert used <= options()
    assert "--follow" in used


def test_the_readme_names_every_record_and_no_other() -> None:
    assert first_column(section(README, "Records")) == list(properties())


def test_the_readme_names_every_field_and_no_other() -> None:
    fields = set().union(*properties().values())
    assert set(first_column(section(README, "Fields"))) == fields


def test_the_readme_tells_which_records_a_field_is_of() -> None:
    of = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section(README, "Fields"), re.MULTILINE))
    records = properties()
    for field, told in of.items():
        named = set(re.findall(r"`(\w+)`", told))
        if named:
            assert all(field in records[event] for event in named), field


def test_every_field_has_its_line_among_the_other_names() -> None:
    fields = set().union(*properties().values())
    names = first_column(FIELDS)
    assert set(names) == fields
    assert len(names) == len(fields)


def test_every_line_of_other_names_is_whole() -> None:
    rows = [line for line in FIELDS.splitlines() if line.startswith("| `")]
    assert all(len(line.strip("|").split("|")) == 4 for line in rows)
    assert all(cell.strip() for line in rows for cell in line.strip("|").split("|"))


def test_the_readme_names_every_exit_status() -> None:
    statuses = re.findall(r"^\| (\d+) \|", section(README, "Exit status"), re.MULTILINE)
    assert statuses == ["0", "1", "2", "78"]


@pytest.mark.parametrize("text", RECORD.findall(README))
def test_a_record_in_the_readme_is_one(text: str) -> None:
    jsonschema.validate(json.loads(text), schema())


@pytest.mark.parametrize("name", ["README.md", "bench/README.md"])
def test_the_bench_has_its_place(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count("<!-- bench -->\n") == text.count("<!-- /bench -->\n") == 1


def test_there_are_recipes_and_records() -> None:
    assert len(RECIPES) >= 5
    assert RECORD.findall(README)


@pytest.fixture
def shell() -> dict[str, str]:
    """The environment in which a user runs a recipe: with this environment's command on PATH."""
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
    remarks = [line for line in done.stderr.splitlines() if "sockagent: warning:" not in line]
    assert (done.returncode, remarks) == (0, [])


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
    """Meanwhile local TCP connections open, live longer than two polls, and close."""
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


def test_every_metric_is_told_of() -> None:
    source = (ROOT / "agent" / "publish" / "http" / "metrics.py").read_text(encoding="utf-8")
    made = set(re.findall(r'"(sockagent_[a-z_]+)"', source))
    feed = (ROOT / "docs" / "feed.md").read_text(encoding="utf-8")
    told = {name.removesuffix("_total") for name in first_column(section(feed, "Metrics"))}
    assert told == made
