"""A holding of one of several hosts."""

# No deferred annotations, as in model.py.
from typing import NamedTuple

from ..model import Holding


class HostHolding(NamedTuple):
    """A holding of ``host``. ``since`` is when the socket was opened, in seconds since the Unix
    epoch, None if unknown."""

    host: str
    holding: Holding
    since: float | None
