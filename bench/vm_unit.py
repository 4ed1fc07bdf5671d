"""Check the service as the Debian package installs it, in a machine that boots Debian's systemd.

A root file system of Debian 12 is built once; the package is built from this checkout and installed
in a copy. The machine boots it with a kernel of Debian, starts the service during the boot, and
then runs vm_unit_checks.py, which prints a row for each check.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .agents import ROOT
from .vm import boot, parse, shell_script

_RELEASE = "bookworm"
_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "libnss-systemd", "python3", "curl", "iproute2", "procps",
)  # fmt: skip
_TOOLS = ("mmdebstrap", "dpkg-buildpackage", "dh", "tar")
_CHECKS = "vm_unit_checks.py"
_AT = Path("/srv")  # Where the checks are in the machine.
# Without udev, units of terminals would wait for their devices.
_APPEND = "systemd.getty_auto=no systemd.mask=getty@tty1.service systemd.show_status=no"

# Process 1: systemd, with a unit that runs the checks once the machine has booted. systemd mounts
# its own file systems.
_INIT = """#!/bin/sh
for each in /sys/kernel/tracing /sys/fs/cgroup; do /run/vm/busybox umount $each; done
cat >/run/vm/checks <<'END'
{script}END
mkdir -p /run/systemd/system/multi-user.target.wants
cat >/run/systemd/system/checks.service <<'END'
[Service]
ExecStart=/bin/sh /run/vm/checks
END
ln -s ../checks.service /run/systemd/system/multi-user.target.wants/
exec /lib/systemd/systemd
"""


def root_archive(cache: Path) -> Path:
    """Return a tar archive of a root file system; build it unless it is in the cache."""
    archive = cache / f"{_RELEASE}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        building = archive.with_suffix(".new.tar")
        _run("mmdebstrap", "--variant=minbase", "--quiet", f"--include={','.join(_PACKAGES)}",
             _RELEASE, str(building))  # fmt: skip
        building.rename(archive)
    return archive


def install(root: Path, archive: Path) -> None:
    """Unpack the root file system, and install in it the package of this checkout, which enables
    the service."""
    root.mkdir()
    _run("tar", "--extract", "--numeric-owner", f"--file={archive}", f"--directory={root}")
    built = _run(str(ROOT / "systemd" / "debian" / "build"), "python3").splitlines()[-1]
    shutil.copy(ROOT / built, root / "tmp" / "sockagent.deb")
    _run("chroot", str(root), "dpkg", "--install", "/tmp/sockagent.deb")
    shutil.copy(Path(__file__).with_name(_CHECKS), root / _AT.relative_to("/"))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr.strip()}")
    return done.stdout


def main() -> int:
    """Build the machine and run the checks; return 1 if one fails."""
    options = parse(argparse.ArgumentParser(prog="python -m bench vm_unit", description=__doc__))
    missing = [name for name in _TOOLS if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"install {', '.join(missing)} (mmdebstrap, dpkg-dev, debhelper)")
    script = shell_script(["python3", _CHECKS], _AT, {"LANG": "C.UTF-8"})
    with tempfile.TemporaryDirectory(prefix="bench-unit-") as scratch:
        root = Path(scratch, "root")
        install(root, root_archive(options.cache))
        return boot(_INIT.format(script=script), options, root, _APPEND)


if __name__ == "__main__":
    sys.exit(main())
