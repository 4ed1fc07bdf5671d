import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel import cgroups
from agent.kernel.cgroups import MOUNTS, Cgroups
from agent.kernel.procfs.stat import parse_cgroup


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """A hierarchy with one service in it."""
    (tmp_path / "cgroup.controllers").write_text("cpu\n")
    (tmp_path / "system.slice" / "app.service").mkdir(parents=True)
    return tmp_path


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_cgroup_is_found_by_its_inode(mount: Path) -> None:
    found = Cgroups((str(mount),))
    service = inode(mount / "system.slice" / "app.service")
    assert found.find_path(service) == "/system.slice/app.service"
    assert found.find_path(inode(mount)) == "/"
    assert found.find_path(1) is None


def test_beside_v1_the_root_is_not_reported(mount: Path, tmp_path: Path) -> None:
    found = Cgroups((str(tmp_path / "v1"), str(mount)))
    assert found.find_path(inode(mount)) is None
    assert found.find_path(inode(mount / "system.slice")) == "/system.slice"


def test_files_are_not_cgroups(mount: Path) -> None:
    assert Cgroups((str(mount),)).find_path(inode(mount / "cgroup.controllers")) is None


def test_a_new_cgroup_is_found_by_the_next_walk(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Cgroups((str(mount),))
    assert found.find_path(inode(mount)) == "/"
    (mount / "new.slice").mkdir()
    assert found.find_path(inode(mount / "new.slice")) is None  # Too early for another walk.
    monkeypatch.setattr(cgroups, "MIN_WALK_INTERVAL_SECONDS", 0.0)
    assert found.find_path(inode(mount / "new.slice")) == "/new.slice"


def test_unknown_inodes_cause_one_walk_per_interval(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[str] = []
    walk = os.walk

    def counting_walk(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
        walks.append(root)
        return walk(root)

    monkeypatch.setattr(os, "walk", counting_walk)
    found = Cgroups((str(mount),))
    assert [found.find_path(1) for _ in range(5)] == [None] * 5
    assert walks == [str(mount)]


def test_a_removed_cgroup_keeps_its_path(mount: Path) -> None:
    found = Cgroups((str(mount),))
    directory = mount / "system.slice" / "app.service"
    removed = inode(directory)
    assert found.find_path(removed) == "/system.slice/app.service"
    directory.rmdir()
    assert found.find_path(removed) == "/system.slice/app.service"


def test_beside_v1_only_the_unified_hierarchy_is_walked(mount: Path, tmp_path: Path) -> None:
    v1 = tmp_path / "old"
    v1.mkdir()
    service = inode(mount / "system.slice" / "app.service")
    assert Cgroups((str(v1), str(mount))).find_path(service) == "/system.slice/app.service"
    assert Cgroups((str(v1),)).find_path(inode(v1)) is None


def test_without_a_hierarchy_no_cgroup_is_found(tmp_path: Path) -> None:
    assert Cgroups(()).find_path(1) is None
    assert Cgroups((str(tmp_path / "nowhere"),)).find_path(1) is None


def test_the_cgroup_of_this_process_is_found() -> None:
    lines = Path("/proc/self/cgroup").read_bytes().splitlines(keepends=True)
    unified = b"".join(line for line in lines if line.startswith(b"0::"))
    path = parse_cgroup(unified).cgroup
    mounted = [mount for mount in MOUNTS if os.path.exists(f"{mount}/cgroup.controllers")]
    if not path or not mounted or not os.path.isdir(mounted[-1] + path):
        pytest.skip("no unified hierarchy is mounted here")
    # Beside v1 the root is not reported.
    expected = None if path == "/" and mounted[-1] == MOUNTS[1] else path
    assert Cgroups().find_path(os.stat(mounted[-1] + path).st_ino) == expected
