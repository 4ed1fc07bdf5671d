"""A container that runs systemd, in which the service is installed.

It requires root, mmdebstrap and systemd-nspawn; its preparation takes about a minute.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
TOOLS = ("mmdebstrap", "systemd-nspawn", "nsenter", "git")
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "dbus-broker", "python3-minimal", "libpython3-stdlib",
    "python3-venv", "iproute2", "libcap2-bin", "libnss-systemd", "procps", "make",
    "nats-server", "openssl",
)  # fmt: skip
BOOT_SECONDS = 60.0
# The directory in the container with the project, the wheels and the scripts of the tests.
SHARED = "/srv/t"


def is_available() -> bool:
    """Return whether the container can run on this machine."""
    return os.geteuid() == 0 and all(map(shutil.which, TOOLS))


def prepare(directory: Path) -> Path:
    """Create and return a root file system; beside it, ``shared`` with the project and wheels."""
    root, shared = directory / "root", directory / "shared"
    shared.mkdir()
    include = "--include=" + ",".join(PACKAGES)
    subprocess.run(
        ["nice", "mmdebstrap", "--variant=minbase", "--quiet", include, "bookworm", str(root)],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(shared / "project")], check=True)
    # Include uncommitted changes.
    for name in ("agent", "share", "systemd", "Makefile", "pyproject.toml", "README.md"):
        target = shared / "project" / name
        if target.is_dir():
            shutil.rmtree(target)
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    for name in ("requirements.txt", "build-requirements.txt"):
        subprocess.run(
            [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "download",
             "--dest", str(shared / "wheels"), "--no-deps", "--only-binary", ":all:", "--no-binary",
             "nkeys", "--python-version", "3.11", "--require-hashes",
             "--requirement", str(ROOT / "systemd" / name)],
            check=True, capture_output=True,
        )  # fmt: skip
    return root


class Container:
    """The running container; its changes to the root file system are discarded."""

    def __init__(self, root: Path) -> None:
        self._log = (root.parent / "boot.log").open("wb")
        self._process = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "--directory", str(root), "--machine",
             f"sa{os.getpid()}", "--boot", "--register=no", "--keep-unit", "--console=pipe",
             "--private-network", "--volatile=overlay",
             f"--bind-ro={root.parent / 'shared'}:{SHARED}"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )  # fmt: skip
        self.leader = ""
        self.bin = self.units = ""  # The directories of the installed commands and units.

    def __enter__(self) -> Self:
        end = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < end:
            found = subprocess.run(
                ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False
            )
            self.leader = found.stdout.strip()
            if self.leader:
                state = self.run("systemctl is-system-running", check=False)
                if state.stdout.strip() in ("running", "degraded"):
                    return self
            time.sleep(0.2)
        raise TimeoutError("the container did not boot")

    def __exit__(self, *_raised: object) -> None:
        self.run("systemctl poweroff", check=False)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()

    def run(
        self, script: str, *, check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the container, as root, and wait for it."""
        done = subprocess.run(
            [*self.enter(), "sh", "-ec", script], capture_output=True, text=True, check=False,
            timeout=timeout, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start a shell script in the container, as root."""
        return subprocess.Popen(
            [*self.enter(), "sh", "-ec", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip

    def enter(self) -> list[str]:
        """Return the command that runs its arguments in the container."""
        return ["nsenter", "-t", self.leader, "-m", "-u", "-i", "-p", "-n", "-C", "-r", "-w", "--"]

    def show(self, name: str, unit: str = "sockagent.service") -> str:
        """Return a property of a unit."""
        return self.run(f"systemctl show --value -p {name} {unit}").stdout.strip()

    def until(self, script: str, seconds: float = 30.0) -> None:
        """Wait until a script exits with status 0."""
        end = time.monotonic() + seconds
        while self.run(script, check=False).returncode:
            assert time.monotonic() < end, self.run("journalctl -n 50 --no-pager").stdout + script
            time.sleep(0.2)
