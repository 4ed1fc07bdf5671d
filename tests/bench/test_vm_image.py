from pathlib import Path

import pytest

from bench import vm_image
from bench.vm_image import Kernel, initramfs


def entries(archive: bytes) -> dict[str, bytes]:
    """The files of a cpio archive, parsed independently of the code that writes it."""
    found: dict[str, bytes] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        size, length = (int(archive[at + o : at + o + 8], 16) for o in (54, 94))
        name = archive[at + 110 : at + 110 + length - 1].decode()
        at = -(-(at + 110 + length) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = archive[at : at + size]
        at = -(-(at + size) // 4) * 4


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"ELF")
    monkeypatch.setattr(vm_image, "_BUSYBOX", str(busybox))

    def module(name: str, depends: str) -> Path:
        path = tmp_path / f"{name}.ko"
        path.write_bytes(f"ELF\0license=GPL\0depends={depends}\0name={name}\0".encode())
        return path

    needs = {"9p": "9pnet,netfs", "9pnet_virtio": "9pnet,virtio-ring", "9pnet": "", "netfs": "",
             "virtio_ring": ""}  # fmt: skip
    return Kernel("6.1", tmp_path, {name: module(name, needs[name]) for name in needs})


def test_initramfs_loads_modules_after_those_that_they_depend_on(kernel: Kernel) -> None:
    found = entries(initramfs(kernel, "echo", None))
    (line,) = [
        line for line in found["init"].decode().splitlines() if line.startswith("for module")
    ]
    assert line.split(";")[0].split(" in ")[1].split() == [
        "9pnet", "virtio_ring", "9pnet_virtio", "netfs", "9p",
    ]  # fmt: skip
    assert {name for name in found if name.endswith(".ko")} == {
        f"modules/{name}.ko" for name in kernel.modules
    }


def test_initramfs_has_the_command_and_the_directory_of_files(kernel: Kernel) -> None:
    found = entries(initramfs(kernel, "exit 3", Path("/tmp/out put")))
    assert found["command"] == b"exit 3"
    assert found["files-at"] == b"/tmp/out put"
    assert found["bin/busybox"] == b"ELF"
    assert "files-at" not in entries(initramfs(kernel, "exit 3", None))
