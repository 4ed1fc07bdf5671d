"""``make install`` and ``make uninstall`` where they have to refuse, below a directory of the test.

What they do where all is well test_service.py shows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from .container import ROOT
from .helpers import need_tool

PIN = re.compile(r"^([a-z0-9-]+)==(\S+) \\$", re.MULTILINE)
LOCKS = {
    name: dict(PIN.findall((ROOT / "systemd" / name).read_text()))
    for name in ("requirements.txt", "build-requirements.txt")
}


def make(target: str, found: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    # No index, and only what is found there: whatever else has to be fetched cannot be.
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": found}
    return subprocess.run(
        ["make", "--no-print-directory", target, f"PYTHON={sys.executable}",
         *(f"{name}={value}" for name, value in settings.items())],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def tools() -> None:
    need_tool("make")


@pytest.mark.parametrize("prefix", ["opt/sockagent", "/opt/my app", "/opt/a&b", "/opt/a|b", ""])
def test_a_prefix_that_is_none(prefix: str, tmp_path: Path) -> None:
    done = make("install", PREFIX=prefix, DESTDIR=str(tmp_path))
    assert done.returncode != 0
    assert done.stderr.startswith(f"sockagent: PREFIX={prefix} m")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "usr/local/bin/theirs"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    done = make("install", PREFIX="/usr/local", DESTDIR=str(tmp_path))
    assert done.returncode != 0
    assert "exists and was not created by make install; choose a new directory" in done.stderr
    done = make("uninstall", PREFIX="/usr/local", DESTDIR=str(tmp_path))
    assert done.returncode == 0
    assert theirs.exists()


def test_what_works_stays_where_nothing_can_be_fetched(tmp_path: Path) -> None:
    home = tmp_path / "opt/sockagent"
    home.mkdir(parents=True)
    (home / "sockagent-home").touch()
    (home / "works").touch()
    done = make("install", DESTDIR=str(tmp_path))
    assert done.returncode != 0
    assert "sockagent: nothing was installed, because the dependencies could not" in done.stderr
    assert {path.name for path in home.iterdir()} == {"sockagent-home", "works"}
    assert {path.name for path in tmp_path.iterdir()} == {"opt"}
    assert {path.name for path in home.parent.iterdir()} == {"sockagent"}


def test_all_that_is_asked_for_is_pinned_with_its_hashes() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = asked["project"]
    runs_on = [*project["dependencies"], *project["optional-dependencies"]["metrics"]]
    for name, wanted in (
        ("requirements.txt", runs_on),
        ("build-requirements.txt", asked["build-system"]["requires"]),
    ):
        assert LOCKS[name].keys() >= {re.split(r"[<>=~!]", one)[0] for one in wanted}
        for line in (ROOT / "systemd" / name).read_text().splitlines()[1:]:
            assert re.fullmatch(r"[a-z0-9-]+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line)


def test_what_has_another_hash_is_not_installed(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, version in LOCKS["build-requirements.txt"].items():
        stem = f"{name.replace('-', '_')}-{version}"
        with ZipFile(wheels / f"{stem}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{stem}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n")
    done = make("install", str(wheels), DESTDIR=str(tmp_path / "root"))
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert "sockagent: nothing was installed" in done.stderr
    assert not (tmp_path / "root").exists()


def test_uninstalling_from_another_place_says_where_it_is(tmp_path: Path) -> None:
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    text = (ROOT / "systemd/sockagent.service").read_text()
    (units / "sockagent.service").write_text(text.replace("/opt/sockagent", "/srv/agent"))
    done = make("uninstall", DESTDIR=str(tmp_path))
    assert done.returncode != 0
    assert done.stderr.startswith("sockagent: the service is installed in /srv/agent; run ")
    assert (units / "sockagent.service").exists()


def test_uninstalling_takes_away_what_is_ours(tmp_path: Path) -> None:
    home = tmp_path / "opt/sockagent"
    (home / "bin").mkdir(parents=True)
    (home / "sockagent-home").touch()
    link = tmp_path / "usr/local/bin/sockagent"
    link.parent.mkdir(parents=True)
    link.symlink_to("/opt/sockagent/bin/sockagent")
    changed = tmp_path / "etc/default/sockagent"
    changed.parent.mkdir(parents=True)
    changed.write_text("# mine\n")
    done = make("uninstall", DESTDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not home.exists()
    assert not link.is_symlink()
    assert changed.exists()
