"""The walk in a process of its own, for the one-shot snapshot.

Started before the event loop and the rest of the agent are even imported, it walks on one core
while another imports, reads and parses the tables: under the interpreter's lock threads cannot.
It knows the walker, and nothing of what becomes of the looks.
"""

from __future__ import annotations

import marshal
import os
import signal
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from struct import Struct

from ..model import Process
from .walker import Glance, Look, Walked, Walker

# What the pipe should hold, so that the child seldom waits: the most that anyone may ask for.
_PIPE_BYTES = 1 << 20
_LENGTH = Struct("=I")  # Of a batch, before it.
# Processes a batch: small enough to be worked on while the walk goes on.
_BATCH = 32


class ForkedWalk:
    """A walk of all processes under way in a child process.

    Raises OSError when there can be no child. It must be started while there are no threads.
    """

    def __init__(self, walker: Walker) -> None:
        reading, writing = os.pipe()
        try:
            self._child = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if self._child == 0:
            os.close(reading)  # Else it would wait for itself to read, were the parent gone.
            _walk_and_exit(walker, writing)
        os.close(writing)
        self._file = os.fdopen(reading, "rb")

    def batch(self) -> Walked | None:
        """Wait for the next part of the walk; None when there is no more. Blocking.

        A child that was killed looks like one that is done: it left processes out.
        """
        frame = self._file.read(_LENGTH.size)
        data = self._file.read(*_LENGTH.unpack(frame)) if len(frame) == _LENGTH.size else b""
        try:
            # Not marshal.load: that calls the file for every number.
            looks, failed = marshal.loads(data)  # noqa: S302 (from our own child)
        except (EOFError, ValueError, TypeError):
            self._file.close()
            os.waitpid(self._child, 0)
            self._child = 0
            return None
        return Walked(
            [Look(Process(*process), Glance(*glance), *rest) for process, glance, *rest in looks],
            failed,
        )

    def stop(self) -> None:
        """End the child, if it still walks; ``batch`` returns then."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)


def _walk_and_exit(walker: Walker, writing: int) -> None:
    """The child: walk all but itself, write the outcome, and end without a trace."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with suppress(OSError):  # The user's pipes hold too much already: it waits more often.
            fcntl(writing, F_SETPIPE_SZ, _PIPE_BYTES)
        walker.may_chdir = True
        procfs = walker.procfs
        own = os.getpid()
        pids = [pid for pid in procfs.pids() if pid != own]
        for start in range(0, len(pids), _BATCH):
            walked = walker.walk(pids[start : start + _BATCH])
            # marshal knows no named tuples; plain ones it takes ten times as fast as pickle.
            looks = [
                (
                    tuple(look.process),
                    tuple(look.glance),
                    look.fds,
                    look.more,
                    look.readable,
                    procfs.netns_id(look.netns) or look.netns,
                    look.directory,
                )
                for look in walked.looks
            ]
            data = marshal.dumps((looks, walked.failed))
            left = memoryview(_LENGTH.pack(len(data)) + data)
            while left:
                left = left[os.write(writing, left) :]
        status = 0
    except OSError:  # The parent is gone, or has to walk itself.
        pass
    finally:
        os._exit(status)
