"""Parse ``/proc/net/unix``. Format: ``net/unix/af_unix.c`` (unix_seq_show). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ...model import UNIX_STATES, Socket
from ...text import decode
from ..direction import listening_paths, mark_inbound
from ..rows import Table, update_table

# Num: RefCount Protocol Flags Type St Inode[ Path]; the path may hold spaces, and newlines too.
_ROW = re.compile(
    rb"[0-9A-Fa-f]+: [0-9A-F]{8} [0-9A-F]{8} (?P<flags>[0-9A-F]{8}) (?P<type>[0-9A-F]{4})"
    rb" (?P<state>[0-9A-F]{2}) +(?P<inode>\d{1,10})(?: (?P<path>.*))?",
    re.DOTALL,
)
_ACCEPTS = 1 << 16  # __SO_ACCEPTCON in include/uapi/linux/net.h.
_TYPES = {b"0001": "stream", b"0002": "dgram", b"0005": "seqpacket"}
_STATES = {b"%02X" % code: name for code, name in enumerate(UNIX_STATES, 1)}
# The last fields of Socket: the source, and what the text does not show (peer_inode, backlog,
# interface, cgroup_id, cookie).
_LAST_FIELDS = ("procfs", *(None,) * 5)


def update_unix_table(lines: Iterable[bytes], netns: int | None, before: Table) -> Table:
    """Return the table with these lines; ``before`` is the reading before.

    A path with newlines takes several lines, of which only the first looks like a row.
    """
    known, match_row = before.rows, _ROW.fullmatch
    rows: list[bytes] = []
    for line in lines:
        if line in known or match_row(line):
            rows.append(line)
        elif rows and (match := match_row(rows[-1])) and match["path"]:
            rows[-1] += b"\n" + line
        else:
            rows.append(line)

    def decode_rows(new: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        decoded = list(_decode(new, netns))
        listening = listening_paths(known.values())
        listening |= listening_paths(socket for _row, socket in decoded)
        for row, socket in decoded:
            yield row, mark_inbound(socket, listening)

    return update_table(rows, before, decode_rows)


def _decode(rows: Iterable[bytes], netns: int | None) -> Iterator[tuple[bytes, Socket]]:
    make = tuple.__new__  # At half the cost of Socket(), for tables of 20,000 rows.
    for row in rows:
        match = _ROW.fullmatch(row)
        if match is None:
            continue
        flags, kind, code, inode, path = match.groups()
        state, direction = _STATES.get(code), None
        if int(flags, 16) & _ACCEPTS:
            state, direction = "LISTEN", "listen"
        yield (
            row,
            make(Socket, (
                int(inode), "unix", "unix", _TYPES.get(kind), state, None, None, None, None,
                decode(path) if path else None, direction, None, None, None, netns, *_LAST_FIELDS,
            )),
        )  # fmt: skip
