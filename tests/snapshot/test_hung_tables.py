"""While a read of a table hangs, its rows stay, and everything else is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.model import Snapshot
from agent.snapshot import blocking, schedule, tables
from agent.snapshot.blocking import NO_ANSWER

from ..fakeproc import NETNS, FakeProc, inet_row
from ..unanswering import READ, mount


def seen(snapshot: Snapshot) -> tuple[set[int], str]:
    """Return the inodes in a snapshot, and what is missing from it."""
    return {inode for _pid, inode in snapshot.holdings}, "; ".join(snapshot.coverage.missing)


async def test_the_rows_of_a_table_stay_while_a_read_of_it_hangs(
    fake: FakeProc, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "HANG_SECONDS", 0.1)
    monkeypatch.setattr(tables, "TABLE_SECONDS", 0.1)
    monkeypatch.setattr(schedule, "READ_SECONDS", 0.001)
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
