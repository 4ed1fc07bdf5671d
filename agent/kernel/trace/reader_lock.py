"""The lock of the only reader of a trace instance. It ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time

from .unavailable import explained, instance_in_use

# Whoever asks whether an instance has a reader holds the lock for microseconds.
_LOCK_ATTEMPTS, _LOCK_SECONDS = 5, 0.01
# Opening a pipe of another kind of file system than tracefs could block.
_PIPE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def lock_reader(path: str) -> int:
    """Become the only reader of an instance; return the descriptor that holds the lock.

    Two readers would each get a part of the events. The lock ends when the descriptor is closed.
    While it is open, the instance cannot be removed. Raises TraceUnavailable.
    """
    for attempt in range(_LOCK_ATTEMPTS):
        if attempt:
            time.sleep(_LOCK_SECONDS)
        with explained(path):
            descriptor = _try_lock(path)
        if descriptor is not None:
            return descriptor
    raise instance_in_use(path)


def has_reader(path: str) -> bool:
    """Return whether an agent reads an instance. Raises OSError."""
    descriptor = _try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _try_lock(path: str) -> int | None:
    """Return the open trace of the first CPU, locked; None if another process has locked it."""
    descriptor = os.open(f"{path}/per_cpu/cpu0/trace_pipe_raw", _PIPE_FLAGS)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
