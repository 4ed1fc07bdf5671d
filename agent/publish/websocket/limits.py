"""How many clients the server accepts, and how long it waits for them."""

from __future__ import annotations

from typing import NamedTuple

# From the connection to the end of its request.
HANDSHAKE_SECONDS = 10.0
# Without a byte being read by a subscriber, while a message waits for it.
STALL_SECONDS = 30.0
# From the close frame, or a reply, to the end of the connection; and for the end of the agent.
CLOSE_SECONDS = 1.0
# What a client may send on average, and at once. The server has no use for it.
INBOUND_BYTES_PER_SECOND = 4096
INBOUND_BYTES = 64 * 1024


class Limits(NamedTuple):
    """Maximum numbers of subscribers, in all and of one address or user, and of connections that
    are not subscribers."""

    clients: int = 1000
    clients_per_address: int = 250
    handshakes: int = 200


LIMITS = Limits()
