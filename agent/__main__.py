"""Where the command ``sockagent`` begins: signals end it quietly while the rest is still loaded.

SIGINT as an exception inside an import could leave the interpreter's import lock held, for threads
to wait for in vain.
"""

import os
import signal

# Until the agent listens to signals, they simply end it.
for _number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_number, lambda _number, _frame: os._exit(0))

# As a service, SIGHUP means to read the configuration again: that is about to be read.
if "NOTIFY_SOCKET" in os.environ:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

from .cli import entry  # noqa: E402 (the signals come first)

__all__ = ["entry"]

if __name__ == "__main__":
    entry()
