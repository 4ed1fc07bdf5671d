"""Real churn on a host of a fleet: ``python -m bench.fleet.churn DIRECTORY SEED PAUSE``.

The process and its children open, connect, share and close sockets at random, a step each PAUSE
seconds at most. SIGUSR1 ends that: the children end, and the process keeps its sockets.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from tests.machine.churner import Churn


class _Family(Churn):
    """Churn whose children have no children: their number, and so the rate, stays as it is."""

    def __init__(self, directory: Path, seed: int) -> None:
        super().__init__(directory, seed)
        self._leader = os.getpid()

    def fork(self) -> None:
        if os.getpid() == self._leader:
            super().fork()

    def end(self) -> None:
        """End the children."""
        while self.children:
            self.kill()


def main() -> None:
    """Churn until SIGUSR1, then rest."""
    directory, seed, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    ending: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: ending.append(number))
    churn = _Family(directory, seed)
    while not ending:
        churn.step()
        time.sleep(churn.random.random() * pause)
    churn.end()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
