"""A user who forges netlink messages in a network namespace of his own."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .anyone import Anyone
from .forger import ADDRESS
from .helpers import (
    DEADLINE,
    Follow,
    Holder,
    Record,
    need_root,
    need_tool,
)

FORGER = Path(__file__).with_name("forger.py")
SOCKETS = 20


@contextmanager
def forging(anyone: Anyone, inode: int) -> Iterator[dict[str, int]]:
    """Run the forger as nobody in new user and network namespaces; afterwards the result holds
    how many messages were delivered, by kind."""
    unshared = (*anyone.become, need_tool("unshare"), "-Urn", "--kill-child")
    python = anyone.python[len(anyone.become) :]
    forger = subprocess.Popen(
        (*unshared, *python, "-c", FORGER.read_text(), str(inode)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    assert forger.stdout
    delivered: dict[str, int] = {}
    try:
        assert select.select([forger.stdout], [], [], DEADLINE)[0]
        assert forger.stdout.readline() == "ready\n"
        yield delivered
        delivered.update(json.loads(forger.communicate("end\n", DEADLINE)[0]))
    finally:
        forger.kill()
        forger.communicate()


def is_forged(record: Record) -> bool:
    return ADDRESS in (record.get("local_addr"), record.get("remote_addr"))


def ignored(record: Record) -> list[str]:
    """Return the sentences of a record of coverage on ignored messages."""
    if record["event"] == "hello":
        return []  # Nobody has forged anything yet.
    return [one for one in record.get("missing") or () if "of another process" in one]


def test_forged_netlink_messages_are_ignored_and_reported(anyone: Anyone) -> None:
    need_root()
    with Holder() as here, Holder() as away:
        away.do("unshare(CLONE_NEWNET)")
        opened = [
            (here.pid, here.open("victim = tcp_listener(OWN)")),
            (away.pid, away.open("victim = tcp_listener('0.0.0.0')")),
        ]
        with Follow(interval=0.1) as follow, forging(anyone, opened[0][1]) as delivered:
            follow.started()
            follow.until(lambda: any(map(ignored, follow.records)))
            for number in range(SOCKETS):
                for holder in (here, away):
                    key = (holder.pid, holder.open(f"s{number} = tcp_listener('0.0.0.0')"))
                    opened.append(key)
                    follow.until(lambda key=key: key in follow.fold)  # type: ignore[misc]
            logged = follow.stderr().splitlines()
        assert delivered["notices"]
        assert delivered["malformed notices"]
        assert not list(filter(is_forged, follow.records))
        assert {follow.fold[key]["source"] for key in opened} == {"netlink"}
        assert all("sockagent: warning: " in line for line in logged), logged
        assert len([line for line in logged if "of another process" in line]) == 1, logged
