"""Errors that are reported to the user, each as one sentence.

SockagentError
├── UsageError      wrong usage; names the argument at fault (exit status 2)
│   ├── FilterError     the value of a filter
│   └── TargetError     a target, such as ``:8080``
├── CommandError    wrong usage of a command such as ``events`` (exit status 2)
├── ConfigFailure   a file that the configuration names cannot be used (exit status 78)
└── RuntimeFailure  the agent cannot work on this machine (exit status 1)
"""

from __future__ import annotations

# Ends the message of wrong usage that has no better advice.
SEE_HELP = "; see sockagent --help"


def with_advice(message: str) -> str:
    """Return a message of wrong usage with where to look, unless it asks what was meant."""
    return message if message.endswith("?") else message + SEE_HELP


class SockagentError(Exception):
    """Base of the errors that are reported to the user."""


class UsageError(SockagentError):
    """Wrong usage. ``argument`` is the name of the argument at fault, without dashes."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message)
        self.argument = argument


class FilterError(UsageError):
    """An invalid value of a filter; ``argument`` is the name of the filter."""


class TargetError(UsageError):
    """An invalid target; ``argument`` is the target as it was typed."""


class CommandError(SockagentError):
    """Wrong words after a command such as ``events``."""


class ConfigFailure(SockagentError):
    """A file that the configuration names cannot be used: the administrator must correct it."""


class RuntimeFailure(SockagentError):
    """The agent cannot work on this machine."""
