"""Names of the protocols of netlink and packet sockets. Pure."""

from __future__ import annotations

# include/uapi/linux/netlink.h
_NETLINK_PROTOCOLS = {
    0: "route",
    2: "usersock",
    3: "firewall",
    4: "sock_diag",
    5: "nflog",
    6: "xfrm",
    7: "selinux",
    8: "iscsi",
    9: "audit",
    10: "fib_lookup",
    11: "connector",
    12: "netfilter",
    13: "ip6_fw",
    14: "dnrtmsg",
    15: "kobject_uevent",
    16: "generic",
    18: "scsitransport",
    19: "ecryptfs",
    20: "rdma",
    21: "crypto",
    22: "smc",
}
_ETH_P_ALL = 3  # include/uapi/linux/if_ether.h


def netlink_protocol(number: int) -> str:
    """Return the name of a netlink protocol, or its number in digits."""
    return _NETLINK_PROTOCOLS.get(number) or str(number)


def packet_protocol(number: int) -> str:
    """Return ``*`` for a packet socket that receives every protocol, else its EtherType."""
    return "*" if number == _ETH_P_ALL else f"0x{number:04x}"
