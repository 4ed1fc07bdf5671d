"""Find out what held sockets are that no table shows: their descriptors are asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import attrgetter

from ..kernel.procfs.sockprotoname import read_protocols, socket_from_protocol
from ..model import Socket
from .blocking import BlockingCalls
from .holders import Holders
from .join import Descriptor
from .refresh import HolderRefresher


class SocketIdentifier:
    """Asks descriptors for the protocol of their sockets."""

    def __init__(
        self,
        root: str,
        calls: BlockingCalls,
        holders: Holders,
        refresher: HolderRefresher,
    ) -> None:
        self._root = root
        self._calls = calls
        self._holders = holders
        self._refresher = refresher

    async def identify(self, questions: Sequence[Descriptor]) -> dict[int, Socket]:
        """Return what the descriptors show of their sockets, by inode.

        Descriptors that were closed meanwhile are left out, and those of processes that may not be
        read any more: the rows of their sockets are gone.
        """
        names = await self._calls.batch(
            partial(read_protocols, self._root), questions, attrgetter("pid")
        )
        sockets: dict[int, Socket] = {}
        closed: list[int] = []
        for question in questions:
            name = names.get(question)
            state = self._holders.processes[question.pid]
            if not state.readable:
                # No other holder is readable either: ``questions`` prefer readable ones.
                for pid in self._holders.pids_of(question.inode):
                    self._holders.remove_socket(pid, question.inode)
            elif name == b"":
                closed.append(question.inode)
            else:
                sockets[question.inode] = socket_from_protocol(question.inode, name, state.netns)
        await self._refresher.recheck_holders_of(closed)
        return sockets
