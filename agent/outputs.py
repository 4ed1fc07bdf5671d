"""What is printed of the records of remote agents, and the event log of any records."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from .config import Config
from .log import LineLimit
from .publish.terminal.names import Resolver
from .publish.terminal.options import Options
from .publish.terminal.publisher import encode_lines
from .publish.terminal.stream_log import FOLLOWING, StreamLog, is_record_match
from .services import read_services
from .stream.decoder import Decoded, decode
from .stream.fields import DecodeError


def stream_log(config: Config, options: Options, following: str = "") -> StreamLog:
    """Return the event log with the names that are wanted."""
    resolver = None
    if config.view.resolve:
        resolver = Resolver()
        options = replace(options, names=resolver.names)
    if config.view.services:
        options = replace(options, services=read_services())
    return StreamLog(config.filter, options, following, resolver)


class RemoteOutput:
    """The records of remote agents: NDJSON as they come, or the event log."""

    def __init__(
        self, chunks: AsyncIterator[bytes], config: Config, output: str, options: Options
    ) -> None:
        self.matched = False
        self._chunks = chunks
        self._config = config
        self._log = stream_log(config, options, FOLLOWING) if output == "log" else None
        # A newer agent may send nothing that this version can read.
        self._limit = LineLimit("about records of remote agents")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        quiet, chosen = self._config.view.quiet, self._config.filter
        async for chunk in self._chunks:
            lines: list[str] = []
            for record in self._records(chunk):
                self.matched = self.matched or is_record_match(chosen, record)
                if self._log is not None:
                    lines += self._log.of_record(record)
            if quiet:
                if self.matched:
                    return
            elif self._log is None:
                yield chunk
            elif lines:
                yield encode_lines(lines)

    def _records(self, chunk: bytes) -> Iterator[Decoded]:
        """Yield the records of a chunk; those that this version cannot read are left out."""
        for line in chunk.splitlines():
            try:
                yield decode(line)
            except DecodeError as error:
                message = f"warning: a record of a remote agent is left out: {error}"
                self._limit.log(message, time.monotonic())
