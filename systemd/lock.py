"""make lock: pin what an installation takes, with the hashes of its wheels.

It writes ``requirements.txt`` (what the agent runs on) and ``build-requirements.txt`` (what builds
it) beside itself, from what pyproject.toml asks for: the newest versions that pip finds, with the
hash of the wheel for each Python and each kind of machine below, and for this machine.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
# The C libraries that wheels are made for: glibc 2.17 and 2.28.
TAGS = ("manylinux_2_17", "manylinux2014", "manylinux_2_28")
HEAD = "# Written by make lock.\n"

Pins = dict[str, tuple[str, set[str]]]  # The version and the hashes, by name.


def resolve(wanted: list[str], constraints: Path, python: str, machine: str) -> Pins:
    """Return what pip would install on such a machine. Raises CalledProcessError."""
    platforms = [option for tag in TAGS for option in ("--platform", f"{tag}_{machine}")]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "-qqq", "--disable-pip-version-check", "install",
         "--dry-run", "--ignore-installed", "--target", "unused", "--report", "-",
         "--only-binary", ":all:", "--python-version", python, *platforms,
         "--constraint", str(constraints), *wanted],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    pins: Pins = {}
    for package in json.loads(done.stdout)["install"]:
        name = re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower()
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        pins[name] = (package["metadata"]["version"], {digest})
    return pins


def lock(wanted: list[str]) -> str:
    """Return the requirements file of what is wanted and what that depends on."""
    found: Pins = {}
    with tempfile.TemporaryDirectory() as directory:
        constraints = Path(directory, "constraints.txt")
        constraints.touch()
        for machine in sorted({*MACHINES, platform.machine()}):
            for python in PYTHONS:
                for name, (version, hashes) in resolve(
                    wanted, constraints, python, machine
                ).items():
                    found.setdefault(name, (version, set()))[1].update(hashes)
                # The versions of the first one are those of all.
                constraints.write_text("".join(f"{name}=={found[name][0]}\n" for name in found))
    lines = [HEAD]
    for name, (version, hashes) in sorted(found.items()):
        options = [f"    --hash=sha256:{digest}" for digest in sorted(hashes)]
        lines.append(" \\\n".join([f"{name}=={version}", *options]) + "\n")
    return "".join(lines)


def main() -> None:
    """Write both files."""
    here = Path(__file__).parent
    project = tomllib.loads((here.parent / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    runs_on = [*project["project"]["dependencies"], *extras["metrics"]]
    files = {
        "requirements.txt": lock(runs_on),
        "build-requirements.txt": lock(project["build-system"]["requires"]),
    }
    for name, content in files.items():
        (here / name).write_text(content)


main()
