"""Errors of ``make install`` and ``make uninstall``, in a temporary directory.

test_service.py tests successful installations.
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


def make(target: str, wheels: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    # Without a package index: only packages in the directory ``wheels`` can be downloaded.
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels}
    return subprocess.run(
        ["make", "--no-print-directory", target, f"PYTHON={sys.executable}",
         *(f"{name}={value}" for name, value in settings.items())],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def tools() -> None:
    need_tool("make")


@pytest.mark.parametrize("prefix", ["opt/sockagent", "/opt/my app", "/opt/a&b", "/opt/a|b", ""])
def test_an_invalid_prefix_is_rejected(prefix: str, tmp_path: Path) -> None:
    done = make("install", PREFIX=prefix, DESTDIR=str(tmp_path))
    assert done.returncode != 0
    assert done.stderr.startswith(f"sockagent: PREFIX={prefix} m")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_not_created_by_make_install_is_unchanged(tmp_path: Path) -> None:
    other = tmp_path / "usr/local/bin/other"
    other.parent.mkdir(parents=True)
    other.touch()
    done = make("install", PREFIX="/usr/local", DESTDIR=str(tmp_path))
    assert done.returncode != 0
    assert "exists and was not created by make install; choose a new directory" in done.stderr
    done = make("uninstall", PREFIX="/usr/local", DESTDIR=str(tmp_path))
    assert done.returncode == 0
    assert other.exists()


def test_a_failed_download_keeps_the_installation(tmp_path: Path) -> None:
    home = tmp_path / "opt/sockagent"
    home.mkdir(parents=True)
    (home / "sockagent-home").touch()
    (home / "installed").touch()
    done = make("install", DESTDIR=str(tmp_path))
    assert done.returncode != 0
    assert "sockagent: nothing was installed, because the dependencies could not" in done.stderr
    assert {path.name for path in home.iterdir()} == {"sockagent-home", "installed"}
    assert {path.name for path in tmp_path.iterdir()} == {"opt"}
    assert {path.name for path in home.parent.iterdir()} == {"sockagent"}


def test_all_dependencies_are_pinned_with_hashes() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    runtime = [*project["dependencies"], *extras["metrics"], *extras["nats"], "nkeys"]
    runtime += extras["top"]
    for name, requirements in (
        ("requirements.txt", runtime),
        ("build-requirements.txt", pyproject["build-system"]["requires"]),
    ):
        assert LOCKS[name].keys() >= {
            re.split(r"[\[<>=~!]", requirement)[0] for requirement in requirements
        }
        for line in (ROOT / "systemd" / name).read_text().splitlines()[1:]:
            assert re.fullmatch(r"[a-z0-9-]+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line)


def test_a_wheel_with_a_different_hash_is_not_installed(tmp_path: Path) -> None:
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


def test_uninstall_with_another_prefix_names_the_installed_one(tmp_path: Path) -> None:
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    text = (ROOT / "systemd/sockagent.service").read_text()
    (units / "sockagent.service").write_text(text.replace("/opt/sockagent", "/srv/agent"))
    done = make("uninstall", DESTDIR=str(tmp_path))
    assert done.returncode != 0
    assert done.stderr.startswith("sockagent: the service is installed in /srv/agent; run ")
    assert (units / "sockagent.service").exists()


def test_uninstall_removes_installed_files_and_keeps_changed_ones(tmp_path: Path) -> None:
    home = tmp_path / "opt/sockagent"
    (home / "bin").mkdir(parents=True)
    (home / "sockagent-home").touch()
    link = tmp_path / "usr/local/bin/sockagent"
    link.parent.mkdir(parents=True)
    link.symlink_to("/opt/sockagent/bin/sockagent")
    changed = tmp_path / "etc/default/sockagent"
    changed.parent.mkdir(parents=True)
    changed.write_text("# changed\n")
    share = tmp_path / "usr/local/share"
    other = share / "man/man1/other.1"
    for page in (share / "man/man1/sockagent.1", other, share / "zsh/site-functions/_sockagent"):
        page.parent.mkdir(parents=True, exist_ok=True)
        page.touch()
    done = make("uninstall", DESTDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not home.exists()
    assert not link.is_symlink()
    assert [path for path in share.rglob("*") if path.is_file()] == [other]
    assert not (share / "zsh").exists()
    assert changed.exists()
