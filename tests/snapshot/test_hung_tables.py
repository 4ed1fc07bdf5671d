"""A table that never comes stays as it was, and everything else goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.model import Snapshot
from agent.snapshot import blocking as hops_module
from agent.snapshot import schedule as schedule_module
from agent.snapshot import tables as sources_module
from agent.snapshot.blocking import NO_ANSWER

from ..fakeproc import NETNS, FakeProc, inet_row
from ..unanswering import READ, mount


def seen(snapshot: Snapshot) -> tuple[set[int], str]:
    """The inodes that it shows, and what it lacks."""
    return {inode for _pid, inode in snapshot.holdings}, "; ".join(snapshot.coverage.missing)


async def test_a_table_that_never_comes_stays_as_it_was(
    fake: FakeProc, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hops_module, "HANG_SECONDS", 0.1)
    monkeypatch.setattr(sources_module, "TABLE_SECONDS", 0.1)
    monkeypatch.setattr(schedule_module, "READ_SECONDS", 0.001)
    fake.process(7, {3: 11, 4: 12})
    fake.table("tcp", inet_row(11))
    fake.table("unix")
    fake.table("udp", inet_row(12))
    poller = fake.poller()
    assert seen(await poller.poll()) == ({11, 12}, "")
    with mount(Path(tmp_path_factory.mktemp("fuse"))) as mounted:
        mounted.silent |= {READ}
        udp = fake.root / "udp.new"
        udp.symlink_to(mounted.file)
        udp.rename(fake._tables(NETNS) / "udp")
        fake.hold(7, {5: 13})
        fake.table("tcp", inet_row(11), inet_row(13))
        for _ in range(2):
            inodes, missing = seen(await poller.poll())
            assert inodes == {11, 12, 13}
            assert missing.startswith("udp/udp6/")
            assert missing.endswith(
                f" of network namespace {NETNS} could not be read ({NO_ANSWER})"
            )
        assert len(mounted.waiting) == 1
    fake.table("udp", inet_row(12))
    for _ in range(1000):
        inodes, missing = seen(await poller.poll())
        if not missing:
            break
    assert (inodes, missing) == ({11, 12, 13}, "")
