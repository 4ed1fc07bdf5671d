"""The screen as a publisher: it runs beside what fills it, and restores the terminal at the end."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from ...log import shown_by
from .screen import TopApp
from .sources import Source

# Variables that shutil.get_terminal_size takes for the size, which is then never another one.
_SIZE_VARIABLES = ("COLUMNS", "LINES")
# A driver joins its threads in less than a second.
_RESTORE_SECONDS = 3.0


class ScreenPublisher:
    """Shows a source on the screen of the terminal."""

    def __init__(self, source: Source, app: TopApp) -> None:
        self._source = source
        self._app = app
        self._showing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Show the source until the user quits. Raises what the source raises."""
        filling = asyncio.create_task(self._fill())
        showing = self._showing = asyncio.create_task(self._show())
        try:
            await asyncio.wait((showing, filling), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # The terminal is restored before anything else is done.
            filling.cancel()
            await self.stop()
        await showing
        with suppress(asyncio.CancelledError):
            await filling

    async def stop(self) -> None:
        """Close the screen and restore the terminal: ``run`` then returns."""
        if self._showing is not None:
            self._app.exit()
            # Not cancelled where this is: the terminal would not be restored.
            await asyncio.wait((self._showing,), timeout=_RESTORE_SECONDS)

    async def _fill(self) -> None:
        await self._source.run()

    async def _show(self) -> None:
        for name in _SIZE_VARIABLES:
            os.environ.pop(name, None)
        with shown_by(self._app.add_message):
            await self._app.run_async()
        if self._app.failure is not None:
            raise self._app.failure
