"""Pin the dependencies of an installation, with the hashes of their wheels (make lock).

Read the dependencies from pyproject.toml and write ``requirements.txt`` (those of the agent) and
``build-requirements.txt`` (those of its build) into the directory of this program: the newest
versions that pip finds, with the hashes of the wheels for the versions of Python and the
architectures below, and for the architecture of this machine. Those in SOURCES have the hash of
their source.
"""

from __future__ import annotations

import hashlib
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
# Wheels for glibc 2.17 (two tags) and glibc 2.28.
TAGS = ("manylinux_2_17", "manylinux2014", "manylinux_2_28")
HEAD = "# Written by make lock.\n"
# Pure Python that PyPI has without a wheel. The installation builds one, with these packages.
SOURCES = ("nkeys",)
SOURCE_BUILD = ("setuptools>=70.1",)

Pins = dict[str, tuple[str, set[str]]]  # Version and hashes by name of the package.


def build_sources(directory: str) -> dict[str, str]:
    """Build wheels of the packages without one; return the hashes of their sources by name. Raises
    CalledProcessError."""
    hashes = {}
    for name in SOURCES:
        for command in (("download", "--dest"), ("wheel", "--wheel-dir")):
            subprocess.run(
                [sys.executable, "-m", "pip", "-qqq", "--disable-pip-version-check", *command,
                 directory, "--no-deps", "--no-binary", name, name],
                check=True,
            )  # fmt: skip
        (source,) = Path(directory).glob(f"{name}-*.tar.gz")
        hashes[name] = hashlib.sha256(source.read_bytes()).hexdigest()
        source.unlink()  # So that pip finds the wheel.
    return hashes


def resolve(
    requirements: list[str], constraints: Path, python: str, machine: str, wheels: str
) -> Pins:
    """Return the packages that pip would install on an architecture such as x86_64. ``wheels`` is
    a directory with further ones.

    Raises CalledProcessError.
    """
    platforms = [option for tag in TAGS for option in ("--platform", f"{tag}_{machine}")]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "-qqq", "--disable-pip-version-check", "install",
         "--dry-run", "--ignore-installed", "--target", "unused", "--report", "-",
         "--only-binary", ":all:", "--find-links", wheels, "--python-version", python, *platforms,
         "--constraint", str(constraints), *requirements],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    pins: Pins = {}
    for package in json.loads(done.stdout)["install"]:
        name = re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower()
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        pins[name] = (package["metadata"]["version"], {digest})
    return pins


def lock(requirements: list[str]) -> str:
    """Return a requirements file with these packages and their dependencies."""
    found: Pins = {}
    with tempfile.TemporaryDirectory() as directory:
        constraints = Path(directory, "constraints.txt")
        constraints.touch()
        sources = build_sources(directory)
        for machine in sorted({*MACHINES, platform.machine()}):
            for python in PYTHONS:
                for name, (version, hashes) in resolve(
                    requirements, constraints, python, machine, directory
                ).items():
                    known = {sources[name]} if name in sources else hashes
                    found.setdefault(name, (version, set()))[1].update(known)
                # All further combinations use the versions found for the first one.
                constraints.write_text("".join(f"{name}=={found[name][0]}\n" for name in found))
    lines = [HEAD]
    for name, (version, hashes) in sorted(found.items()):
        options = [f"    --hash=sha256:{digest}" for digest in sorted(hashes)]
        lines.append(" \\\n".join([f"{name}=={version}", *options]) + "\n")
    return "".join(lines)


def main() -> None:
    """Write the two files."""
    here = Path(__file__).parent
    project = tomllib.loads((here.parent / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    names = ("metrics", "nats", "top")
    runtime = [
        *project["project"]["dependencies"],
        *(one for name in names for one in extras[name]),
    ]
    files = {
        "requirements.txt": lock(runtime),
        "build-requirements.txt": lock([*project["build-system"]["requires"], *SOURCE_BUILD]),
    }
    for name, content in files.items():
        (here / name).write_text(content)


main()
