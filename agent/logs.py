"""Where the websockets library logs to: nowhere. At DEBUG it logs headers, tokens among them."""

from __future__ import annotations

import logging

quiet = logging.getLogger("sockagent.websockets")
quiet.addHandler(logging.NullHandler())
quiet.setLevel(logging.CRITICAL)
quiet.propagate = False
