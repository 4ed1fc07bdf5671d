"""The groups of tables in /proc/net that a poll reads together. Pure."""

from __future__ import annotations

from ..kernel.procfs.net_tables import table_of
from ..model import Socket

# Names of files in /proc/net. Each group is read in a thread of its own.
Group = tuple[str, ...]

TCP = ("tcp", "tcp6")
UNIX = ("unix",)
UDP = ("udp", "udp6", "udplite", "udplite6")
OTHERS = ("raw", "raw6", "icmp", "icmp6", "netlink", "packet")
# In the order of the counters in ``sockstat.SocketCounters`` that count the sockets of each group.
GROUPS: tuple[Group, ...] = (TCP, UNIX, UDP, OTHERS)
ALL_GROUPS = frozenset(GROUPS)
GROUP_OF = {name: group for group in GROUPS for name in group}


def groups_of(socket: Socket) -> frozenset[Group]:
    """Return the groups whose tables may list the socket.

    These are all groups if its protocol is unknown, none if no table lists its protocol.
    """
    if socket.proto is None:
        return ALL_GROUPS
    group = GROUP_OF.get(table_of(socket))
    return frozenset() if group is None else frozenset((group,))
