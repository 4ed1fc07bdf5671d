"""The summary: who listens, who is called and who calls whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...model import INET_FAMILIES, Coverage, HostHolding
from .aggregate import IN, LISTEN, OUT, End, HostSummary, summarize
from .cells import is_queue_full, place_of, queue_text, user_name
from .colors import BOLD, DIM, RED, YELLOW, paint
from .endpoints import ANY_ADDRESSES, endpoint, is_loopback
from .grid import Grid, GridColumn
from .options import Options
from .safe import safe, width

# Peers and states that the notes of a row name.
MAX_PEERS = 2
_NOTED_STATES = ("CLOSE_WAIT", "SYN_SENT", "TIME_WAIT")
# Sentences of what could not be read.
MAX_SENTENCES = 3
_EXAMPLE_PORT = 8080
_SEPARATOR = "; "


def summary(
    holdings: Sequence[HostHolding],
    coverage: Mapping[str, Coverage],
    options: Options,
    *,
    all_families: bool = False,
) -> Iterator[str]:
    """Yield the lines of the summary, with a section for each host.

    ``coverage`` is that of the hosts, as far as known; a host without holdings has a section too.
    ``all_families``: unix, netlink and other sockets have rows.
    """
    yield from summary_lines(summarize(holdings, all_families=all_families), coverage, options)


def summary_lines(
    summaries: Iterable[HostSummary], coverage: Mapping[str, Coverage], options: Options
) -> Iterator[str]:
    """Yield the lines of the summaries of hosts, as ``summary`` does."""
    found = {one.host: one for one in summaries}
    for host in sorted(coverage.keys() - found.keys()):
        found[host] = HostSummary(host, 0, 0, (), {})
    for number, host in enumerate(sorted(found)):
        if number:
            yield ""
        yield from _section(found[host], coverage.get(host), options)


def _section(one: HostSummary, coverage: Coverage | None, options: Options) -> Iterator[str]:
    title = f"{safe(one.host, ascii=options.ascii)}: {counted(one.processes, 'process')}, "
    title += counted(one.sockets, "socket")
    yield paint(title, BOLD) if options.color else title
    if one.ends:
        yield from _rows(one.ends, options)
    yield _last_line(one, coverage, options)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 process``, ``3,639 sockets``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def _last_line(one: HostSummary, coverage: Coverage | None, options: Options) -> str:
    parts = []
    if one.omitted:
        kinds = sorted(one.omitted.items(), key=lambda kind: (-kind[1], kind[0]))
        listed = ", ".join(f"{count:,} {proto}" for proto, count in kinds)
        parts.append(f"Not shown: {listed} (-a).")
    if coverage is not None:
        parts += _gaps(coverage, options)
    ports = [end.port for end in one.ends if end.role == LISTEN and end.port]
    parts.append(f"One port: sockagent :{ports[0] if ports else _EXAMPLE_PORT}")
    return safe(" ".join(parts), ascii=options.ascii)


def gap_lines(coverage: Mapping[str, Coverage], options: Options) -> Iterator[str]:
    """Yield a line for each host of which something could not be read."""
    for host, one in sorted(coverage.items()):
        sentences = _gaps(one, options)
        if sentences:
            named = [f"{host}:", *sentences] if len(coverage) > 1 else sentences
            yield safe(" ".join(named), ascii=options.ascii)


def _gaps(coverage: Coverage, options: Options) -> list[str]:
    """Return sentences about what could not be read."""
    sentences, gaps = [], coverage.missing
    if coverage.unreadable:
        advice = " (root can)" if options.root_can else ""
        sentences.append(f"{counted(coverage.unreadable, 'process')} could not be read{advice}.")
        gaps = gaps[1:]  # The first sentence names these processes.
    sentences += [f"{sentence}." for sentence in gaps[:MAX_SENTENCES]]
    if len(gaps) > MAX_SENTENCES:
        sentences.append(f"{counted(len(gaps) - MAX_SENTENCES, 'more gap')}.")
    return sentences


def _rows(ends: Sequence[End], options: Options) -> Iterator[str]:
    services = [_service(end, options) for end in ends]
    is_plain = [end.holding.socket.family in INET_FAMILIES for end in ends]
    users = [_text(user_name(end.holding), options) for end in ends]
    units = [_text(place_of(end.holding, "unit"), options) for end in ends]
    columns = [
        GridColumn("ROLE", [end.role for end in ends]),
        GridColumn("PROTO", [safe(end.proto, ascii=options.ascii) for end in ends]),
        GridColumn("SERVICE", services, floor=16, whole=is_plain, codes=_service_codes(ends)),
        GridColumn("CONNS", [_connections(end) for end in ends], right=True),
        GridColumn("PROCESS", [_process(end, options) for end in ends]),
        GridColumn("PID", [_pid(end) for end in ends], right=True),
        GridColumn("USER", users, floor=9, hide=2),
        GridColumn("UNIT", units, floor=16, hide=1),
    ]  # fmt: skip
    notes = [_notes(end, options) for end in ends]
    alarms = [RED if is_alarming(end) else "" for end in ends]
    # Each row keeps at least its first note.
    more = len(options.ellipsis) + 1
    floor = max(
        (width(first) + more * bool(rest) for first, *rest in filter(None, notes)), default=0
    )
    texts = [_SEPARATOR.join(row) for row in notes]
    columns.append(
        GridColumn("NOTES", texts, floor=floor, codes=alarms, shorten=_fewer_notes, first=True)
    )
    grid = Grid(columns, options)
    yield from grid.lines()
    if grid.hidden:
        yield f"hidden: {', '.join(grid.hidden)}; -o summary | less -S"


def _fewer_notes(text: str, columns: int, ellipsis: str) -> str:
    """Return as many notes from the first on as fit, and the ellipsis where some do not."""
    notes = text.split(_SEPARATOR)
    while len(notes) > 1 and width(text) > columns:
        notes.pop()
        text = f"{_SEPARATOR.join(notes)} {ellipsis}"
    return text


def _text(text: str | None, options: Options) -> str:
    return "-" if text is None else safe(text, ascii=options.ascii)


def _process(end: End, options: Options) -> str:
    process = end.holding.process
    name = "?" if process is None else safe(process.comm, ascii=options.ascii)
    return f"{name} +{end.others}" if end.others else name


def _pid(end: End) -> str:
    process = end.holding.process
    return "-" if process is None else str(process.pid)


def _connections(end: End) -> str:
    return "-" if end.role == LISTEN else f"{end.connections:,}"


def _service(end: End, options: Options) -> str:
    if end.holding.socket.family in INET_FAMILIES:
        text = endpoint(end.proto, end.address or "0.0.0.0", end.port, options)  # noqa: S104
        return safe(text, ascii=options.ascii)
    return _text(end.address, options)


def _service_codes(ends: Sequence[End]) -> list[str]:
    return [
        YELLOW if end.role == LISTEN and _is_exposed(end)
        else DIM if is_loopback(end.address)
        else ""
        for end in ends
    ]  # fmt: skip


def _is_exposed(end: End) -> bool:
    """Return whether callers from everywhere are accepted."""
    return end.socket is not None and end.socket.local_addr in ANY_ADDRESSES


def is_alarming(end: End) -> bool:
    """Return whether the accept queue is full, or connections wait to be closed."""
    if end.socket is not None:
        return is_queue_full(end.socket)
    return bool(end.states.get("CLOSE_WAIT"))


def _notes(end: End, options: Options) -> list[str]:
    """Return the notes of a row, safe and the most important first."""
    if end.socket is not None:
        notes = ["all addresses"] if _is_exposed(end) else []
        if end.socket.state == "LISTEN" and end.socket.backlog is not None:
            if is_queue_full(end.socket):
                return [f"queue {queue_text(end.socket)}: FULL", *notes]
            notes.append(f"queue {queue_text(end.socket)}")
        return notes
    notes = [f"{end.states[state]:,} {state}" for state in _NOTED_STATES if end.states.get(state)]
    notes += _peers(end)
    word = "to" if end.role == OUT else "from"
    if len(end.sources) > 1:
        notes.append(f"{word} {len(end.sources):,} addresses")
    elif end.sources and end.role == IN:
        (address,) = end.sources
        if not (end.peers and is_loopback(address)):  # The processes say it.
            notes.append(f"{word} {options.names.get(address, address)}")
    return [safe(note, ascii=options.ascii) for note in notes]


def _peers(end: End) -> list[str]:
    """Return which processes of this machine are at the other ends."""
    word = {IN: "from", OUT: "to"}.get(end.role, "with")
    named = sorted(end.peers.items(), key=lambda peer: (-peer[1], peer[0]))
    notes = [
        f"{'all' if count == end.connections > 1 else f'{count:,}'} {word} {peer.label}"
        for peer, count in named[:MAX_PEERS]
    ]
    if len(named) > MAX_PEERS:
        others = sum(count for _peer, count in named[MAX_PEERS:])
        notes.append(f"{others:,} {word} {len(named) - MAX_PEERS:,} other processes")
    return notes
