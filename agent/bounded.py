"""Mappings of bounded size."""

from __future__ import annotations

from collections.abc import MutableMapping
from itertools import islice
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")
# The share of a full mapping that is dropped at a time.
_DROPPED_SHARE = 16


def drop_oldest(mapping: MutableMapping[K, V], limit: int) -> None:
    """Drop the oldest items of a mapping with more than ``limit`` items, a share of them at a time.

    Finding the oldest item of a dict takes time in proportion to the items deleted before it:
    20,000 deletions, one at a time, take 120 ms.
    """
    if len(mapping) > limit:
        for key in list(islice(mapping, len(mapping) - limit + limit // _DROPPED_SHARE)):
            del mapping[key]
