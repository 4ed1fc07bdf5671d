"""The kernel of a Debian package, and an initramfs that mounts the root of this machine. No root
file system is built: programs, this checkout and its environment are those of the host."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# What is needed for the root file system, and what the kernel cannot load from there on demand.
_MODULES = (
    *("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"),
    *("tcp_diag", "udp_diag", "raw_diag", "unix_diag", "netlink_diag", "packet_diag"),
)
_BUSYBOX = "/bin/busybox"
_NEWC_MAGIC = b"070701"  # Documentation/driver-api/early-userspace/buffer-format.rst

# Process 1 of the initramfs. Arguments: the names of modules in order of their dependencies.
_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in {modules}; do insmod /modules/$module.ko || exit 1; done
share=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o ro,cache=loose,$share root /lower || exit 1
mount -t tmpfs rw /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /root || exit 1
for each in proc sys dev run; do mkdir -p /root/$each; done
mount --move /proc /root/proc
mount --move /sys /root/sys
mount --move /dev /root/dev
mount -t tmpfs run /root/run
mkdir -p /root/dev/pts /root/dev/shm /root/run/vm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t tracefs tracefs /root/sys/kernel/tracing
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
ip link set lo up
cp /bin/busybox /command /root/run/vm/
if [ -e /files-at ]; then
    mkdir -p "/root$(cat /files-at)"
    mount -t 9p -o cache=none,$share files "/root$(cat /files-at)" || exit 1
fi
exec switch_root /root /run/vm/busybox sh /run/vm/command
"""


class Kernel(NamedTuple):
    """An unpacked kernel package: its release, its image and its modules by name."""

    release: str
    image: Path
    modules: dict[str, Path]


def kernel(package: str, cache: Path) -> Kernel:
    """Download and unpack the kernel package, unless it is in the cache. A metapackage stands for
    the package that it depends on. Raises SystemExit."""
    shown = _run("apt-cache", "depends", "--important", package)
    real = re.search(r"Depends: (linux-image-\d\S*)", shown)
    directory = cache / (real[1] if real else package)
    if not directory.exists():
        unpacking = directory.with_suffix(".new")
        shutil.rmtree(unpacking, ignore_errors=True)
        unpacking.mkdir(parents=True)
        _run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", directory.name,
             cwd=unpacking)  # fmt: skip
        (archive,) = unpacking.glob("*.deb")
        _run("dpkg-deb", "-x", archive.name, ".", cwd=unpacking)
        archive.unlink()
        unpacking.rename(directory)
    (image,) = (directory / "boot").glob("vmlinuz-*")
    modules = {
        path.name.partition(".")[0].replace("-", "_"): path for path in directory.rglob("*.ko*")
    }
    return Kernel(image.name.removeprefix("vmlinuz-"), image, modules)


def initramfs(kernel: Kernel, command: str, files: Path | None) -> bytes:
    """Return a cpio archive that mounts the root of the host read-only, below a layer in memory,
    and then runs the shell script ``command`` as process 1."""
    modules: dict[str, bytes] = {}
    for name in _MODULES:
        _load(kernel, name, modules)
    archive = bytearray()
    for directory in ("bin", "dev", "lower", "modules", "proc", "root", "rw", "sys"):
        archive += _entry(directory, stat.S_IFDIR | 0o755)
    archive += _entry("bin/busybox", stat.S_IFREG | 0o755, Path(_BUSYBOX).read_bytes())
    archive += _entry(
        "init", stat.S_IFREG | 0o755, _INIT.format(modules=" ".join(modules)).encode()
    )
    archive += _entry("command", stat.S_IFREG | 0o755, command.encode())
    if files is not None:
        archive += _entry("files-at", stat.S_IFREG | 0o644, str(files).encode())
    for name, module in modules.items():
        archive += _entry(f"modules/{name}.ko", stat.S_IFREG | 0o644, module)
    return bytes(archive + _entry("TRAILER!!!", 0))


def _load(kernel: Kernel, name: str, loaded: dict[str, bytes]) -> None:
    """Add a module after those that it depends on; one that is built in has no file."""
    if name in loaded or name not in kernel.modules:
        return
    content = kernel.modules[name].read_bytes()
    if kernel.modules[name].suffix == ".xz":
        content = lzma.decompress(content)
    for needed in _dependencies(content):
        _load(kernel, needed, loaded)
    loaded[name] = content


def _dependencies(module: bytes) -> Iterator[str]:
    """Yield the names in the "depends" entry of a module's .modinfo section."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    for name in found[1].decode().split(",") if found else ():
        if name:
            yield name.replace("-", "_")


def _entry(name: str, mode: int, content: bytes = b"") -> bytes:
    """Return one file of a cpio archive in the format newc."""
    path = os.fsencode(name) + b"\0"
    # inode, mode, uid, gid, nlink, mtime, size, 4 device numbers, length of the name, checksum
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = _NEWC_MAGIC + b"".join(b"%08x" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
