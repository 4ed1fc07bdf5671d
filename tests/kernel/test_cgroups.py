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
    assert (
        found.find_path(inode(mount / "system.slice" / "app.service"))
        == "/system.slice/app.service"
    )
    assert found.find_path(inode(mount)) == "/"
    assert found.find_path(1) is None


def test_beside_v1_the_root_tells_nothing(mount: Path, tmp_path: Path) -> None:
    found = Cgroups((str(tmp_path / "v1"), str(mount)))
    assert found.find_path(inode(mount)) is None
    assert found.find_path(inode(mount / "system.slice")) == "/system.slice"


def test_files_are_no_cgroups(mount: Path) -> None:
    assert Cgroups((str(mount),)).find_path(inode(mount / "cgroup.controllers")) is None


def test_one_that_came_later_is_looked_for(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Cgroups((str(mount),))
    assert found.find_path(inode(mount)) == "/"
    (mount / "new.slice").mkdir()
    assert found.find_path(inode(mount / "new.slice")) is None  # Not so soon.
    monkeypatch.setattr(cgroups, "MIN_WALK_INTERVAL_SECONDS", 0.0)
    assert found.find_path(inode(mount / "new.slice")) == "/new.slice"


def test_one_that_is_not_known_is_seldom_looked_for(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[str] = []
    walk = os.walk

    def counted(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
        walks.append(root)
        return walk(root)

    monkeypatch.setattr(os, "walk", counted)
    found = Cgroups((str(mount),))
    assert [found.find_path(1) for _ in range(5)] == [None] * 5
    assert walks == [str(mount)]


def test_one_that_was_removed_is_still_named(mount: Path) -> None:
    found = Cgroups((str(mount),))
    directory = mount / "system.slice" / "app.service"
    was = inode(directory)
    assert found.find_path(was) == "/system.slice/app.service"
    directory.rmdir()
    assert found.find_path(was) == "/system.slice/app.service"


def test_beside_v1_the_unified_hierarchy_is_meant(mount: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    service = mount / "system.slice" / "app.service"
    assert Cgroups((str(old), str(mount))).find_path(inode(service)) == "/system.slice/app.service"
    assert Cgroups((str(old),)).find_path(inode(old)) is None


def test_without_cgroups_there_are_none(tmp_path: Path) -> None:
    assert Cgroups(()).find_path(1) is None
    assert Cgroups((str(tmp_path / "nowhere"),)).find_path(1) is None


def test_our_own_cgroup() -> None:
    lines = Path("/proc/self/cgroup").read_bytes().splitlines(keepends=True)
    unified = b"".join(line for line in lines if line.startswith(b"0::"))
    place = parse_cgroup(unified).cgroup
    mounted = [path for path in MOUNTS if os.path.exists(f"{path}/cgroup.controllers")]
    if not place or not mounted or not os.path.isdir(mounted[-1] + place):
        pytest.skip("no unified hierarchy is mounted here")
    # Beside v1 its root tells nothing.
    told = None if place == "/" and mounted[-1] == MOUNTS[1] else place
    assert Cgroups().find_path(os.stat(mounted[-1] + place).st_ino) == told
