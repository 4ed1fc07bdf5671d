from pathlib import Path

import pytest

from agent.preflight import hints
from agent.stream.filters import Filter

PROTOCOLS = """\
protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re
MPTCPv6   2064      0       0   no       0   yes  kernel      y  n  y  y  y  y  y  y  y  y  n  n
AF_VSOCK  1280      0      -1   NI       0   no   kernel      n  n  n  n  n  n  n  n  n  n  n  n
"""


@pytest.fixture
def proc(tmp_path: Path) -> str:
    (tmp_path / "self" / "net").mkdir(parents=True)
    (tmp_path / "self" / "net" / "protocols").write_text(PROTOCOLS)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user", "root"),
        ("user", "0"),
        ("user", "no*"),
        ("proto", "TCP"),
        ("proto", "mptcp"),
        ("proto", "vsock"),
        ("proto", "udp,unix"),
        ("proto", "sct?"),
        ("family", "inet6"),
        ("family", "vsock"),
        ("family", "unix"),
        ("comm", "any-name"),
    ],
)
def test_a_value_that_can_match_has_no_hint(proc: str, name: str, value: str) -> None:
    assert list(hints(Filter({name: [value]}), proc)) == []


@pytest.mark.parametrize(
    ("name", "value", "begins"),
    [
        ("user", "no-such-user", "there is no user 'no-such-user' on this machine"),
        ("proto", "tcp,tpc", "this kernel has no proto 'tpc'; it has icmp, mptcp, netlink, "),
        ("proto", "tcp6", "this kernel has no proto 'tcp6'"),
        ("family", "ipv6", "this kernel has no family 'ipv6'; it has inet, inet6, "),
        ("family", "tcp", "this kernel has no family 'tcp'"),
        ("proto!", "tpc", "this kernel has no proto 'tpc'"),
    ],
)
def test_a_value_that_cannot_match_has_a_hint(
    proc: str, name: str, value: str, begins: str
) -> None:
    (hint,) = hints(Filter({name: [value]}), proc)
    assert hint.startswith(begins)


@pytest.mark.parametrize(("all_rows", "count"), [(False, 1), (True, 0)])
def test_time_wait_requires_all(proc: str, all_rows: bool, count: int) -> None:
    for state in ("time_wait", "TIME-WAIT"):
        assert len(list(hints(Filter({"state": [state]}), proc, all_rows=all_rows))) == count


def test_a_procfs_without_a_list_of_protocols(tmp_path: Path) -> None:
    assert list(hints(Filter({"proto": ["tcp"]}), str(tmp_path))) == []
