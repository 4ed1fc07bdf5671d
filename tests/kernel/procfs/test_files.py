import os
from collections.abc import Hashable
from pathlib import Path

import pytest

from agent.kernel.procfs import files
from agent.kernel.procfs.files import Progress


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_longer_than_one_piece_is_read_whole(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(data)
    assert files.read(str(tmp_path / "file")) == data


def test_a_file_of_procfs_is_read_although_its_size_is_0() -> None:
    assert os.stat("/proc/self/stat").st_size == 0
    assert files.read("/proc/self/stat").startswith(b"%d (" % os.getpid())


def test_a_path_is_relative_to_the_open_directory(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("old")
    with files.open_directory(str(tmp_path / "old")) as directory:
        (tmp_path / "old").rename(tmp_path / "gone")
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / "file").write_text("new")
        assert files.read("file", directory) == b"old"


def test_read_or_empty_returns_nothing_where_read_raises(tmp_path: Path) -> None:
    assert files.read_or_empty(str(tmp_path / "none")) == b""
    with pytest.raises(FileNotFoundError):
        files.read(str(tmp_path / "none"))


def test_a_link_target_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    os.symlink(b"/bin/caf\xe9", bytes(tmp_path / "exe"))
    with files.open_directory(str(tmp_path)) as directory:
        assert files.read_link("exe", directory) == "/bin/caf\\xe9"
        assert files.read_link("none", directory) is None


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = descriptors()
    files.read("/proc/self/stat")
    with pytest.raises(IsADirectoryError):
        files.read(str(tmp_path))
    with files.open_directory(str(tmp_path)), pytest.raises(FileNotFoundError):
        files.read(str(tmp_path / "none"))
    assert descriptors() == before


def test_an_open_directory_is_not_inherited(tmp_path: Path) -> None:
    with files.open_directory(str(tmp_path)) as directory:
        assert not os.get_inheritable(directory)


def test_each_notes_the_item_being_read() -> None:
    progress = Progress()
    assert progress.place is None
    assert [progress.place for _item in progress.each([7, 8])] == [7, 8]


def test_each_notes_the_place_of_an_item() -> None:
    progress = Progress()

    def place_of(item: int) -> Hashable:
        return ("counters", item)

    places = [progress.place for _item in progress.each([7, 8], place_of)]
    assert places == [("counters", 7), ("counters", 8)]


def test_stop_ends_a_batch_before_its_next_item() -> None:
    progress = Progress()
    read = []
    for item in progress.each([7, 8, 9]):
        read.append(item)
        if item == 8:
            progress.stop()
    assert read == [7, 8]
    assert progress.place == 8
