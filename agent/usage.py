"""argparse, but for how it tells of wrong usage: a stderr that nobody reads stops nothing."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import NoReturn

from .log import finish, write

WRONG_USAGE = 2


class Parser(ArgumentParser):
    """A parser of arguments."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with the status that tells so."""
        write(f"{self.prog}: {message}; {self.prog} --help tells how it is used\n")
        finish()
        raise SystemExit(WRONG_USAGE)
