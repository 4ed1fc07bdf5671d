"""Run a command in a virtual machine with the kernel of a Debian package, as root.

The machine has the files of this one, read-only below a layer in memory, so the checkout and its
environment are at the same paths. The package manager downloads the kernel once.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .agents import ROOT
from .vm_image import initramfs, kernel

_QEMU = "qemu-system-x86_64"
_CACHE = ROOT / "build" / "vm"
_KEPT = ("PATH", "LANG", "TERM")

# An unreliable clock of a slow machine would be replaced by a slow one.
_APPEND = "console=ttyS0 loglevel=4 panic=-1 tsc=reliable mitigations=off"
# Runs the command. The ports are those of _ports(): standard output, standard error, exit status.
_SCRIPT = """#!/bin/sh
cd {cwd}
export {environment}
port=$(echo /dev/vport*p1)
port=${{port%1}}
( exec {command} ) </dev/null >${{port}}1 2>${{port}}2
echo $? >${{port}}3
/run/vm/busybox poweroff -f
"""


def run(command: list[str], options: argparse.Namespace) -> int:
    """Run the command in a new machine; return its exit status. Raises SystemExit."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {"HOME": "/root", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', os.defpath)}"
    return boot(shell_script(command, Path.cwd(), environment), options)


def shell_script(command: list[str], cwd: Path, environment: dict[str, str]) -> str:
    """Return a shell script that runs the command in a machine, and then ends the machine."""
    return _SCRIPT.format(
        cwd=shlex.quote(str(cwd)),
        environment=" ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items()),
        command=shlex.join(command),
    )


def boot(script: str, options: argparse.Namespace, root: Path = Path("/"), append: str = "") -> int:
    """Boot a new machine with this root directory and this shell script as process 1; return the
    exit status that the script of ``shell_script`` wrote. ``append``: parameters of the kernel.
    Raises SystemExit."""
    chosen = kernel(options.kernel, options.cache)
    files = options.files and options.files.resolve()
    if files is not None:
        files.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-vm-") as scratch:
        status, log = Path(scratch, "status"), Path(scratch, "console")
        initrd = Path(scratch, "initrd")
        initrd.write_bytes(initramfs(chosen, script, files))
        machine = [
            _QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "q35,accel=kvm:tcg" if options.kvm else "q35,accel=tcg",
            "-cpu", "max", "-smp", str(options.cpus), "-m", str(options.memory),
            "-kernel", str(chosen.image), "-initrd", str(initrd), "-append", f"{_APPEND} {append}",
            "-serial", f"file:{log}",
            *_share("root", root, readonly=True),
            *([] if files is None else _share("files", files, readonly=False)),
        ]  # fmt: skip
        outputs = [os.dup(1), os.dup(2)]  # qemu refuses standard descriptors here.
        machine += _ports(outputs, status)
        try:
            subprocess.run(
                machine, stdin=subprocess.DEVNULL, pass_fds=outputs, timeout=options.timeout,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            print(f"the machine ran for more than {options.timeout} s", file=sys.stderr)
        finally:
            for output in outputs:
                os.close(output)
        text = status.read_text() if status.exists() else ""
        if options.console or not text:
            sys.stderr.write(log.read_text(errors="replace") if log.exists() else "")
        return int(text) if text else 1


def _share(tag: str, path: Path, *, readonly: bool) -> list[str]:
    """Return the options of a 9p file system."""
    mode = ",readonly=on" if readonly else ""
    where = f"local,id={tag},path={path},security_model=none,multidevs=remap{mode}"
    return ["-fsdev", where, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _ports(outputs: list[int], status: Path) -> list[str]:
    """Return the options of the ports for standard output, standard error and exit status."""
    options = ["-device", "virtio-serial-pci"]
    paths = []
    for number, output in enumerate(outputs, 1):
        options += ["-add-fd", f"fd={output},set={number}"]
        paths.append(f"/dev/fdset/{number}")
    for number, path in enumerate((*paths, str(status)), 1):
        options += [
            "-chardev", f"file,id=port{number},path={path},append=on",
            "-device", f"virtserialport,nr={number},chardev=port{number}",
        ]  # fmt: skip
    return options


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add the options of a machine and parse the command line."""
    add = parser.add_argument
    add("--kernel", default="linux-image-amd64", metavar="PACKAGE", help="(%(default)s)")
    add("--files", type=Path, metavar="DIRECTORY", help="where the command may write files")
    add("--cpus", type=int, default=2)
    add("--memory", type=int, default=2048, metavar="MIB")
    add("--timeout", type=float, default=1800.0, metavar="SECONDS")
    add("--cache", type=Path, default=_CACHE, metavar="DIRECTORY", help="of kernels (build/vm)")
    add("--kvm", action="store_true", help="not only software emulation")
    add("--console", action="store_true", help="print the messages of the kernel")
    options = parser.parse_args()
    if platform.machine() != "x86_64":
        parser.error("the machine is an x86_64, as this one must be")
    missing = [name for name in (_QEMU, "busybox", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        parser.error(f"install {', '.join(missing)} (qemu-system-x86, busybox-static)")
    return options


def main() -> int:
    """Parse the command line and run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench vm", description=__doc__, usage="%(prog)s [options] -- COMMAND..."
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parse(parser)
    return run(options.command, options)


if __name__ == "__main__":
    sys.exit(main())
