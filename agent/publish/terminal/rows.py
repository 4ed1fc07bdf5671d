"""Holdings to rows: one for each socket, with its holders and its other end on this machine."""

# No deferred annotations, as in model.py: typing.NamedTuple would compile them at import.
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...model import Holding, HostHolding, Process, Socket
from .peers import Holder, Peers


class Row(NamedTuple):
    """A socket with its oldest holder; ``others`` counts further holders. ``peer`` holds the other
    end on this machine, None if there is none or it is not known. ``socket`` and ``process`` are
    those of the holding, which nearly all columns read."""

    host: str
    holding: Holding
    since: float | None
    others: int
    peer: Holder | None
    socket: Socket
    process: Process | None


def by_host(holdings: Sequence[HostHolding]) -> dict[str, Sequence[HostHolding]]:
    """Return the holdings of each host."""
    hosts = dict.fromkeys([one.host for one in holdings])
    if len(hosts) == 1:
        return dict.fromkeys(hosts, holdings)
    split: dict[str, list[HostHolding]] = {host: [] for host in hosts}
    for one in holdings:
        split[one.host].append(one)
    return dict(split)


def _age(one: HostHolding) -> tuple[float, int]:
    """Return what sorts holders from the oldest to the youngest, unknown ones at the end."""
    process = one.holding.process
    return (float("inf"), 0) if process is None else (process.start_ticks, process.pid)


class Grouping:
    """The sockets of one host and their holders, of holdings that come in parts.

    ``several`` has by inode all holders of the sockets that have more than one.
    """

    def __init__(self) -> None:
        self.several: dict[int, list[HostHolding]] = {}
        self._first: dict[int, HostHolding] = {}
        self._without_inode: list[HostHolding] = []  # No process holds them.

    def add(self, holdings: Iterable[HostHolding]) -> list[HostHolding]:
        """Add holdings; return those of sockets that had none so far."""
        first, several, added = self._first, self.several, []
        for one in holdings:
            inode = one.holding.socket.inode
            if not inode:
                self._without_inode.append(one)
                added.append(one)
            elif inode not in first:
                first[inode] = one
                added.append(one)
            elif inode in several:
                several[inode].append(one)
            else:
                several[inode] = [first[inode], one]
        return added

    def has_older_holders(self) -> bool:
        """Return whether the first holder of a socket is not its oldest one."""
        first = self._first
        return any(min(held, key=_age) is not first[inode] for inode, held in self.several.items())

    def sockets(self) -> list[HostHolding]:
        """Return each socket with its oldest holder, and sort ``several`` from the oldest on."""
        for inode, holders in self.several.items():
            holders.sort(key=_age)
            self._first[inode] = holders[0]
        return [*self._first.values(), *self._without_inode]


def group(
    holdings: Iterable[HostHolding],
) -> tuple[list[HostHolding], dict[int, list[HostHolding]]]:
    """Return the oldest holder of each socket of one host, and by inode all holders, the oldest
    first, of those that have several."""
    grouping = Grouping()
    grouping.add(holdings)
    return grouping.sockets(), grouping.several


def make_rows(
    shown: Sequence[HostHolding],
    everything: Sequence[HostHolding] | None = None,
    *,
    every_holder: bool = False,
) -> list[Row]:
    """Return the rows of the holdings to show.

    ``everything`` are the holdings among which the other ends are looked for, if not only those
    shown. ``every_holder``: a row for each holder.
    """
    known = None if everything is None else by_host(everything)
    rows: list[Row] = []
    for host, holdings in by_host(shown).items():
        sockets, several = group(holdings)
        others = holdings if known is None else known.get(host, holdings)
        same = len(others) == len(holdings)
        indexed = (sockets, several) if same else group(others)
        peers = Peers(indexed[1])
        peers.add(indexed[0])
        found = peers.of([one.holding for one in sockets])
        for (_host, holding, since), peer in zip(sockets, found, strict=True):
            holders = several.get(holding.socket.inode) if several else None
            if holders is None:
                rows.append(Row(host, holding, since, 0, peer, holding.socket, holding.process))
            elif every_holder:
                rows += [_row(host, one, 0, peer) for one in holders]
            else:
                rows.append(_row(host, holders[0], len(holders) - 1, peer))
    return rows


def _row(host: str, one: HostHolding, others: int, peer: Holder | None) -> Row:
    holding = one.holding
    return Row(host, holding, one.since, others, peer, holding.socket, holding.process)
