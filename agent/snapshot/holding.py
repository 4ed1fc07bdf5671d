"""Build holdings, each of one process and one socket. Pure, except for lookups that are passed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..model import MAX_LISTED_FDS, CgroupInfo, Holding, HoldingKey, Owner, Process, Socket


class HoldingBuilder:
    """Makes holdings. ``owner`` names a user id, ``cgroup`` describes a cgroup by its inode."""

    def __init__(
        self,
        owner: Callable[[int], Owner],
        cgroup: Callable[[int], CgroupInfo | None] = lambda _cgroup_id: None,
    ) -> None:
        self._owner = owner
        self._cgroup = cgroup

    def build(
        self,
        socket: Socket,
        process: Process | None,
        fds: tuple[int, ...],
        peer_pid: int | None = None,
        attribution: str | None = None,
    ) -> Holding:
        """Return a holding; ``fds`` are all descriptors of the process on the socket, ascending.

        The owner is the socket's, or the process's if no table shows the socket's owner.
        """
        uid = socket.uid
        if uid is None and process is not None:
            uid = process.uid
        owner = None if uid is None else self._owner(uid)
        cgroup = None
        if process is None and socket.cgroup_id is not None:
            cgroup = self._cgroup(socket.cgroup_id)
        omitted = 0
        if len(fds) > MAX_LISTED_FDS:
            fds, omitted = fds[:MAX_LISTED_FDS], len(fds) - MAX_LISTED_FDS
        # A third faster than Holding(), which counts with 30,000 sockets.
        return tuple.__new__(
            Holding, (socket, process, fds, owner, peer_pid, cgroup, omitted, attribution)
        )


class HoldingsUpdate:
    """The holdings of a poll under way, made from those of the poll before, which stay unchanged.

    ``changed`` are the keys of holdings that were added, replaced or removed.
    """

    def __init__(self, holdings: Mapping[HoldingKey, Holding], builder: HoldingBuilder) -> None:
        self.holdings = dict(holdings)
        self.changed: set[HoldingKey] = set()
        self._builder = builder

    def put(
        self,
        key: HoldingKey,
        socket: Socket,
        process: Process | None,
        fds: tuple[int, ...],
        peer_pid: int | None,
    ) -> None:
        """Put a holding under ``key``, unless the same one is there."""
        last = self.holdings.get(key)
        if (
            last is None
            or last.socket is not socket
            or last.process is not process
            or last.fds != fds
            or last.peer_pid != peer_pid
            or last.omitted_fds
        ):
            holding = self._builder.build(socket, process, fds, peer_pid)
            if holding != last:  # Beyond MAX_LISTED_FDS the descriptors may be the same ones.
                self.holdings[key] = holding
                self.changed.add(key)

    def remove(self, key: HoldingKey) -> None:
        """Remove the holding under ``key``, if there is one."""
        if self.holdings.pop(key, None) is not None:
            self.changed.add(key)
