"""The views for people, with 20,500 holdings: both ends of connections on one machine."""

from __future__ import annotations

from agent.model import Holding, HostHolding, Owner, Process, Socket
from agent.publish.terminal.grid import Grid, GridColumn
from agent.publish.terminal.options import Options
from agent.publish.terminal.rows import make_rows
from agent.publish.terminal.safe import pad, safe
from agent.publish.terminal.summary import summary
from agent.publish.terminal.table import table
from agent.stream.encoder import AgentInfo, Encoder

from .timing import Pair
from .values import COUNT

HOLDINGS = 20_500
WORKERS, CLIENTS = 4, 500
_OPTIONS = Options(width=160)
_NETNS = 4_026_531_833


def web_server(count: int = HOLDINGS) -> list[HostHolding]:
    """Return holdings: workers share a listener, and clients on the same machine call them."""
    workers = [_process(800 + number, "nginx", "web.service") for number in range(WORKERS)]
    clients = [_process(5000 + number, "client", "jobs.service") for number in range(CLIENTS)]
    listener = _socket(1, "LISTEN", 443, None, "listen")
    found = [_held(listener, worker, 6) for worker in workers]
    for number in range((count - WORKERS) // 2):
        port = 1024 + number
        server = _socket(2 + 2 * number, "ESTABLISHED", 443, port, "inbound")
        client = _socket(3 + 2 * number, "ESTABLISHED", port, 443, "outbound")
        found.append(_held(server, workers[number % WORKERS], 7 + number % 1000))
        found.append(_held(client, clients[number % CLIENTS], 7 + number % 1000))
    return found


def _process(pid: int, comm: str, unit: str) -> Process:
    cgroup = f"/system.slice/{unit}"
    return Process(pid, pid, comm, 1, 1.7e9, 33, f"/usr/sbin/{comm}", cgroup, unit)


def _socket(inode: int, state: str, port: int, remote: int | None, direction: str) -> Socket:
    return Socket(
        inode, "tcp", "inet", None, state, "0.0.0.0" if remote is None else "127.0.0.1", port,
        None if remote is None else "127.0.0.1", remote, None, direction, 0, 0, 33, _NETNS,
        "netlink", backlog=511 if remote is None else None,
    )  # fmt: skip


def _held(socket: Socket, process: Process, fd: int) -> HostHolding:
    return HostHolding("web1", Holding(socket, process, (fd,), Owner(33, "www-data")), None)


def _ndjson(holdings: list[HostHolding]) -> bytes:
    encoder = Encoder(AgentInfo("web1", None, "epoch", 1.0))
    head = encoder.head("snapshot", 0, 1.7e9)
    return b"".join(encoder.holdings(head, [one.holding for one in holdings]))


def summary_view() -> Pair:
    """Print the summary of 20,500 holdings; print them as NDJSON."""
    holdings = web_server()
    return Pair(lambda: list(summary(holdings, {}, _OPTIONS)), lambda: _ndjson(holdings))


def table_view() -> Pair:
    """Print the table of 20,500 holdings; print them as NDJSON."""
    holdings = web_server()
    return Pair(lambda: list(table(make_rows(holdings), _OPTIONS)), lambda: _ndjson(holdings))


def table_of_few() -> Pair:
    """Print the table of 40 holdings; print them as NDJSON."""
    holdings = web_server(40)
    return Pair(lambda: list(table(make_rows(holdings), _OPTIONS)), lambda: _ndjson(holdings))


def colored_table() -> Pair:
    """Print a table without colours; with colours. Per row."""
    rows = make_rows(web_server(COUNT))
    color = Options(width=160, color=True)
    return Pair(lambda: list(table(rows, _OPTIONS)), lambda: list(table(rows, color)), len(rows))


def grid_columns() -> Pair:
    """Lay out columns as wholes; pad each cell. Per row of twelve columns."""
    cells = [f"cell {number}" for number in range(COUNT)]
    columns = [GridColumn("TITLE", cells) for _ in range(12)]

    def by_cell() -> list[str]:
        widths = [max(map(len, column.cells)) for column in columns]
        return [
            "  ".join(
                pad(column.cells[row], width) for column, width in zip(columns, widths, strict=True)
            ).rstrip()
            for row in range(COUNT)
        ]

    return Pair(lambda: list(Grid(columns, Options()).lines()), by_cell, COUNT)


def safe_text() -> Pair:
    """Look whether text has only safe characters first; look at each character. Per text."""
    texts = [f"systemd-resolved-{number}" for number in range(COUNT)]
    return Pair(
        lambda: [safe(text) for text in texts],
        lambda: ["".join(c if c.isprintable() else "?" for c in text) for text in texts],
        COUNT,
    )


BENCHMARKS = (summary_view, table_view, table_of_few, colored_table, grid_columns, safe_text)
