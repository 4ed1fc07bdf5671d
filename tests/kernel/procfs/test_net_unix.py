import pytest

from agent.kernel.procfs import net_tables

from ...captures import capture
from ...fakeproc import UNIX_HEADING, unix_row

NETNS = 4026531833


@pytest.mark.parametrize(
    ("inode", "kind", "state", "path", "direction"),
    [
        (134898, "stream", "LISTEN", "/run/app/main.sock", "listen"),
        (134899, "stream", "CONNECTED", None, None),
        (134900, "stream", "CONNECTED", "/run/app/main.sock", "inbound"),
        (134901, "stream", "LISTEN", "/run/app/with  two spaces .sock", "listen"),
        (134902, "stream", "LISTEN", "/run/app/with\nnewline.sock", "listen"),
        (134903, "stream", "LISTEN", "/run/app/a\n\nb\n", "listen"),
        (134904, "stream", "LISTEN", "@app-abstract", "listen"),
        (134905, "stream", "LISTEN", "@with@nul", "listen"),
        (134906, "seqpacket", "LISTEN", "/run/app/seq.sock", "listen"),
        (134907, "dgram", "UNCONNECTED", "/run/app/dgram.sock", None),
        (134908, "stream", "UNCONNECTED", "/run/app/\\xff\\xfe.sock", None),
        (134911, "stream", "UNCONNECTED", None, None),
    ],
)
def test_unix_sockets(
    inode: int, kind: str, state: str, path: str | None, direction: str | None
) -> None:
    row = net_tables.parse("unix", capture("net/unix"), NETNS).sockets()[inode]
    assert (row.type, row.state, row.path, row.direction) == (kind, state, path, direction)
    assert (row.local_addr, row.local_port, row.remote_addr, row.remote_port) == (None,) * 4


def test_a_newline_that_ends_the_last_path_is_kept() -> None:
    table = net_tables.parse("unix", UNIX_HEADING + unix_row(5, "/a") + unix_row(6, "/b\n\n"), None)
    assert {inode: row.path for inode, row in table.sockets().items()} == {5: "/a", 6: "/b\n\n"}
    assert not table.malformed
