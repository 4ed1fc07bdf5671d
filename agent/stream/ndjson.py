"""Subscriptions that give the stream as NDJSON, filtered, in chunks of whole records."""

from __future__ import annotations

from collections.abc import AsyncIterator

from .subscription import DeltaBatch, FullSnapshot, Stream, Subscription, wait_for_each
from .view import Position, View


class NdjsonSubscription:
    """One subscriber of a view.

    ``take`` returns chunk after chunk; asynchronous iteration waits for them. What they contain is
    encoded once for all subscribers of the view.
    """

    __slots__ = ("_begin", "_closed", "_paged", "_snapshot", "_stream", "_subscription", "view")

    def __init__(
        self, stream: Stream, view: View, resume: tuple[str, int] | None, *, snapshot: bool
    ) -> None:
        self.view = view
        self._stream = stream
        self._snapshot = snapshot
        self._subscription = Subscription(
            stream, resume=resume, snapshot=snapshot and view.has_snapshots
        )
        self._paged: DeltaBatch | FullSnapshot | None = None  # What is being taken in pages,
        self._begin: Position = (0, 0)  # and where the next page begins.
        self._closed = False
        view.add_reader()

    @property
    def seq(self) -> int:
        """The newest delta that the chunks taken include, or begin to include."""
        return self._subscription.seq

    def take(self) -> bytes | None:
        """Return the next chunk; None while there is none.

        Return b"" after many records of which none passed the filter: there may be more, but other
        subscribers should be served first.
        """
        paged = self._paged
        if paged is None:
            if self._closed:
                return None
            message = self._subscription.take()
            if isinstance(message, FullSnapshot) and not self.view.has_snapshots:
                message = self._subscription.take()
            if isinstance(message, DeltaBatch):
                self._begin = (message.begin, 0)
            elif isinstance(message, FullSnapshot):
                self._begin = (0, 0)
            else:
                return None if message is None else self.view.encode(message)
            paged = message
        page = self.view.page(paged, self._begin)
        if page.next is None:
            self._paged = None
        else:
            self._paged, self._begin = paged, page.next
        return page.chunk

    def close(self) -> None:
        """Leave the view; ``take`` returns None from now on."""
        if not self._closed:
            self._closed = True
            self._paged = None
            self.view.remove_reader()

    def change_view(self, view: View) -> None:
        """Begin anew with another view: with ``hello`` and, where one is wanted, a snapshot."""
        self.close()
        view.add_reader()
        self.view = view
        self._subscription = Subscription(
            self._stream, snapshot=self._snapshot and view.has_snapshots
        )
        self._closed = False

    def heartbeat(self) -> bytes:
        """Return a heartbeat of now."""
        return self.view.encode(self._subscription.heartbeat())

    def __aiter__(self) -> AsyncIterator[bytes]:
        return wait_for_each(self._stream, self.take, self.heartbeat)
