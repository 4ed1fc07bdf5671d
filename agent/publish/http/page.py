"""Pages that are served over plain HTTP beside the feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

PLAIN = "text/plain; charset=utf-8"


class Reply(NamedTuple):
    """The content of a page."""

    status: int
    content_type: str
    body: bytes


Page = Callable[[], Reply]
