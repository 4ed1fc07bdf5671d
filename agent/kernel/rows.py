"""What the tables of procfs and those of netlink have in common. Pure.

A table consists of rows of bytes. A row is identified by its bytes: a row that has not changed is
not decoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from ..model import Socket

# Yields each row with its socket; leaves out malformed rows.
Decode = Callable[[Iterable[bytes]], Iterator[tuple[bytes, Socket]]]


class Table(NamedTuple):
    """One reading of a table: its sockets by row, and the rows that could not be decoded. ``added``
    and ``removed`` are the difference from the reading before."""

    rows: Mapping[bytes, Socket]
    malformed: frozenset[bytes] = frozenset()
    added: Mapping[bytes, Socket] = {}
    removed: tuple[Socket, ...] = ()

    def sockets(self) -> dict[int, Socket]:
        """Return the sockets by inode, without the rows that no process can hold."""
        return {inode: socket for socket in self.rows.values() if (inode := socket.inode)}

    def unowned(self) -> list[Socket]:
        """Return the sockets that no process can hold."""
        return [socket for socket in self.rows.values() if not socket.inode]


EMPTY = Table({})


class Scope(NamedTuple):
    """What decoding the rows of a network namespace requires. ``ephemeral_ports`` are those that
    the kernel chooses from; ``interface_name`` returns the name of the interface with an index."""

    netns: int | None
    ephemeral_ports: range
    interface_name: Callable[[int], str] = str


def update_table(rows: Iterable[bytes], before: Table, decode: Decode) -> Table:
    """Return the table with these rows, or ``before`` itself if nothing changed. ``decode`` is
    called once, with the rows that are not in ``before``, and only if there are any."""
    if before is EMPTY:
        listed = list(rows)
        added = dict(decode(listed))
        malformed = frozenset(set(listed) - added.keys() if len(added) < len(listed) else ())
        return Table(added, malformed, added) if listed else EMPTY
    known = before.rows
    current = dict.fromkeys(rows)
    unknown = current.keys() - known.keys()
    # If as many known rows are present as there were, none was removed.
    kept = len(current) - len(unknown)
    gone = known.keys() - current.keys() if kept < len(known) else set()
    malformed = before.malformed & current.keys()
    unknown -= malformed
    # In the order of the table: of two rows of one socket, the later one is newer.
    new = list(filter(unknown.__contains__, current)) if len(unknown) > 1 else list(unknown)
    if not new and not gone and malformed == before.malformed:
        return before
    added = dict(decode(new)) if new else {}
    if len(added) != len(new):
        malformed |= frozenset(new) - added.keys()
    merged = dict(known)
    removed = tuple(merged.pop(row) for row in gone)
    merged.update(added)
    return Table(merged, malformed, added, removed)


# include/uapi/linux/netlink.h
_NETLINK_PROTOCOLS = {
    0: "route", 2: "usersock", 3: "firewall", 4: "sock_diag", 5: "nflog", 6: "xfrm", 7: "selinux",
    8: "iscsi", 9: "audit", 10: "fib_lookup", 11: "connector", 12: "netfilter", 13: "ip6_fw",
    14: "dnrtmsg", 15: "kobject_uevent", 16: "generic", 18: "scsitransport", 19: "ecryptfs",
    20: "rdma", 21: "crypto", 22: "smc",
}  # fmt: skip
_ETH_P_ALL = 3  # include/uapi/linux/if_ether.h


def netlink_protocol(number: int) -> str:
    """Return the name of a netlink protocol, or its number in digits."""
    return _NETLINK_PROTOCOLS.get(number) or str(number)


def packet_protocol(number: int) -> str:
    """Return ``*`` for a packet socket that receives every protocol, else its EtherType."""
    return "*" if number == _ETH_P_ALL else f"0x{number:04x}"
