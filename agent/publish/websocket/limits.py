"""How much of the server clients may take. It knows nothing of them."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """How many there may be: clients in all, of one address or user, and handshakes under way."""

    clients: int = 1000
    clients_per_address: int = 250
    handshakes: int = 200


LIMITS = Limits()
