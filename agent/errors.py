"""The errors that a user is told of, each in one sentence.

SockagentError
├── UsageError      wrong usage; names the argument at fault (exit status 2)
│   └── FilterError     a filter's value
├── ConfigFailure   files that the configuration names cannot be used (exit status 78)
└── RuntimeFailure  the agent cannot work here (exit status 1)
"""

from __future__ import annotations


class SockagentError(Exception):
    """Base of what is told to the user."""


class UsageError(SockagentError):
    """Wrong usage. ``argument`` is the name of what is at fault, without dashes."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message)
        self.argument = argument


class FilterError(UsageError):
    """A filter that cannot be understood; ``argument`` is the filter's name."""


class ConfigFailure(SockagentError):
    """What the configuration names cannot be used: it takes a person to mend it."""


class RuntimeFailure(SockagentError):
    """The agent cannot do its work on this machine."""
