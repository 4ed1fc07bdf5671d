"""What is said to a person, on stderr; stdout carries records and nothing else."""

from __future__ import annotations

import contextlib
import os
import sys

from .model import Coverage

_PRIVILEGE = "run it as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, to see everything"


def warn(coverage: Coverage) -> None:
    """Say once on stderr what cannot be seen."""
    if coverage.complete:
        return
    missing = "; ".join(coverage.missing)
    if coverage.unreadable:
        missing += f" ({coverage.unreadable} of {coverage.processes} processes)"
        if os.geteuid():
            missing += f"; {_PRIVILEGE}"
    say(f"warning: {missing}")


def say(message: str) -> None:
    """One line on stderr, if there is one to write to."""
    if sys.stderr is None:  # Closed: print() would write to stdout instead.
        return
    with contextlib.suppress(OSError):
        print(f"sockagent: {message}", file=sys.stderr, flush=True)
