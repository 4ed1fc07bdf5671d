"""Records and subscribers: encoding, filtering, access, frames of clients."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from orjson import loads
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

from agent.model import Holding, Opened, Process
from agent.stream.decoder import decode
from agent.stream.encoder import AgentInfo, Encoder
from agent.stream.filters import Filter
from agent.stream.state import State as RecordState
from agent.text import escape_controls

from .timing import Pair
from .values import COUNT, holdings

PAGE = 500
PINGS = 100
FILTERS = 200


def record_templates() -> Pair:
    """Encode records with a template; from a dict of fields (of two descriptors)."""
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    head = encoder.head("snapshot", 0, 1.7e9)
    usual, others = holdings(), holdings(fds=2)
    return Pair(
        lambda: list(encoder.holdings(head, usual)),
        lambda: list(encoder.holdings(head, others)),
        COUNT,
    )


def decoded_records() -> Pair:
    """Decode records to values; only parse their JSON."""
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    lines = list(encoder.holdings(encoder.head("snapshot", 0, 1.7e9), holdings()))
    return Pair(
        lambda: list(map(decode, lines)),
        lambda: list(map(loads, lines)),
        COUNT,
    )


def applied_records() -> Pair:
    """Apply decoded records to a state; only decode them."""
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    lines = list(encoder.holdings(encoder.head("snapshot", 0, 1.7e9), holdings()))

    def apply() -> None:
        apply = RecordState().apply
        for line in lines:
            apply(decode(line))

    return Pair(apply, lambda: list(map(decode, lines)), COUNT)


def shared_records() -> Pair:
    """Encode a delta once for 200 filters; for each of them. Per delta and filter."""
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    deltas = [Opened(holding) for holding in holdings(PAGE // 5)]

    def once() -> None:
        lines: dict[int, bytes] = {}
        for _ in range(FILTERS):
            for seq, delta in enumerate(deltas):
                if lines.get(seq) is None:
                    lines[seq] = encoder.delta(delta, seq, 1.7e9)

    def each() -> None:
        for _ in range(FILTERS):
            for seq, delta in enumerate(deltas):
                encoder.delta(delta, seq, 1.7e9)

    return Pair(once, each, FILTERS * len(deltas))


def control_characters() -> Pair:
    """Look for control characters before the call that escapes them; call always."""
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    head = encoder.head("snapshot", 0, 1.7e9)
    records = [record.decode() for record in encoder.holdings(head, holdings())]
    return Pair(
        lambda: [
            escape_controls(record) if not record.isascii() or "\x7f" in record else record
            for record in records
        ],
        lambda: [escape_controls(record) for record in records],
        COUNT,
    )


def filter_loop() -> Pair:
    """Ask all tests of a filter in a loop; in a generator for all()."""
    held = holdings()
    tests: tuple[Callable[[Holding], bool], ...] = (
        lambda holding: holding.socket.proto == "tcp",
        lambda holding: holding.socket.local_port == 8080,
    )

    def matches(holding: Holding) -> bool:
        for test in tests:  # noqa: SIM110 (what is measured)
            if not test(holding):
                return False
        return True

    def matches_all(holding: Holding) -> bool:
        return all(test(holding) for test in tests)

    return Pair(
        lambda: [matches(holding) for holding in held],
        lambda: [matches_all(holding) for holding in held],
        COUNT,
    )


def page_filter() -> Pair:
    """Filter a page by port; by 8 KiB of globs that nearly match. Per page.

    There are more names than a filter remembers.
    """
    held = [
        holding._replace(process=Process(number, 100, "app", 1, 0.0, unit=f"{'a' * 60}{number}"))
        for number, holding in enumerate(holdings(COUNT))
    ]
    port = Filter({"port": ["443"]})
    globs = Filter({"unit": [",".join(f"*a*a*x{number:03}" for number in range(8192 // 10))]})
    return Pair(
        lambda: [port.matches(holding) for holding in held],
        lambda: [globs.matches(holding) for holding in held],
        COUNT // PAGE,
    )


def token_comparison() -> Pair:
    """Compare a token in constant time; with ==."""
    known, given = ["0123456789abcdef" * 2] * COUNT, b"fedcba9876543210" * 2
    return Pair(
        lambda: [compare_digest(given, token.encode()) for token in known],
        lambda: [given == token.encode() for token in known],
        COUNT,
    )


def ping_frames() -> Pair:
    """Parse the smallest pings; as many bytes in one frame. Per ping or as many bytes."""
    pings = Frame(Opcode.PING, b"").serialize(mask=True) * PINGS
    whole = Frame(Opcode.BINARY, bytes(len(pings))).serialize(mask=True)

    def parse(data: bytes) -> int:
        protocol = Protocol(SERVER, state=State.OPEN, max_size=None)
        protocol.receive_data(data)
        return len(protocol.events_received()) + len(protocol.data_to_send())

    return Pair(lambda: parse(pings), lambda: parse(whole), PINGS)


BENCHMARKS = (
    record_templates,
    decoded_records,
    applied_records,
    shared_records,
    control_characters,
    filter_loop,
    page_filter,
    token_comparison,
    ping_frames,
)
