"""The chain of messages of each host: which records of a message to pass on. Pure.

A message names the one before it. One that does not continue the newest one was passed on before,
or messages between them are missing: then the host is read again from its newest snapshot on. If
they are missing there, too, their changes are lost, and nothing of the host is passed on until a
message that begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

from ...stream.fleet import Link

# Ended runs of an agent whose ends are remembered: messages of them may be read again.
MAX_ENDED = 8


class Action(Enum):
    """What to do with a message."""

    PASS = auto()
    # Pass on a message that begins anew, except ``lost`` at its beginning: that counts from another
    # message than the newest one that was passed on.
    PASS_ANEW = auto()
    PASS_LATER = auto()  # Pass on the records with a number higher than ``Verdict.after``.
    DROP = auto()
    # Read the messages of the host from ``Link.snapshot`` on, and judge them and this one again.
    READ_AGAIN = auto()


class Missing(NamedTuple):
    """The changes ``first`` to ``last`` are lost; ``last`` is None where the run that had them has
    ended."""

    first: int
    last: int | None


class Verdict(NamedTuple):
    """What to do with a message, and what is lost before it."""

    action: Action
    after: int = 0
    lost: Missing | None = None


class HostPosition(NamedTuple):
    """What was passed on of a host: the changes up to ``through`` of ``epoch``; the newest message
    of it has the id ``last``.

    ``in_step``: what follows can be passed on; else a message that begins anew is awaited.
    ``whole``: no snapshot is under way. ``ended`` has the ends of earlier runs of the agent.
    Without an epoch nothing was passed on.
    """

    epoch: str
    through: int
    last: str
    in_step: bool
    whole: bool
    ended: tuple[tuple[str, int], ...] = ()


_PASS = Verdict(Action.PASS)
_ANEW = Verdict(Action.PASS_ANEW)
_DROP = Verdict(Action.DROP)
_READ_AGAIN = Verdict(Action.READ_AGAIN)


def judge(
    at: HostPosition | None, link: Link, *, again: bool = False, checkpoints: bool = True
) -> tuple[Verdict, HostPosition | None]:
    """Return the verdict on a message, and the position after it.

    ``again``: the message is read again, or what precedes it was. ``checkpoints``: pass on
    snapshots that repeat what was passed on.
    """
    if at is None or not at.epoch:
        if link.begins:
            return _ANEW, _follow(at, link)
        if at is None and not again:
            return _READ_AGAIN, None
        return _DROP, HostPosition("", 0, link.id, in_step=False, whole=False)
    if link.epoch != at.epoch:
        return _judge_other_epoch(at, link, again=again)
    is_next = at.in_step and link.previous == at.last
    is_repeated = at.whole and link.begins and not checkpoints
    is_known = link.id == at.last or is_repeated or (not is_next and (at.whole or not link.begins))
    if link.through < at.through or (link.through == at.through and is_known):
        return _DROP, at
    if link.begins:
        return _begin(at, link, is_next=is_next)
    return _judge_changes(at, link, is_next=is_next, again=again)


def _begin(at: HostPosition, link: Link, *, is_next: bool) -> tuple[Verdict, HostPosition]:
    """Pass on a message that begins anew in the same run of the agent."""
    if is_next:
        return _PASS, _follow(at, link)
    lost = Missing(at.through + 1, link.after) if link.after > at.through else None
    return _ANEW._replace(lost=lost), _follow(at, link)


def _judge_changes(
    at: HostPosition, link: Link, *, is_next: bool, again: bool
) -> tuple[Verdict, HostPosition]:
    """Judge a message with changes that are new, or with a part of a snapshot."""
    if not at.in_step:
        return _DROP, at
    if link.after == at.through and (is_next or at.whole):
        return _PASS, _follow(at, link)
    if link.after < at.through and at.whole:
        return Verdict(Action.PASS_LATER, at.through), _follow(at, link)
    if not again:
        return _READ_AGAIN, at
    lost = Missing(at.through + 1, link.through)
    return Verdict(Action.DROP, lost=lost), _silence(at, link)


def _judge_other_epoch(
    at: HostPosition, link: Link, *, again: bool
) -> tuple[Verdict, HostPosition]:
    """Judge a message of a run of the agent that began since, or of one that has ended."""
    is_next = at.in_step and link.previous == at.last
    ended = dict(at.ended).get(link.epoch)
    if ended is not None and link.through <= ended:
        # Agents of one name take turns, and a log that has lost its end goes on with an earlier
        # one: then a run goes on where it ended.
        goes_on = link.begins and link.through == ended and (is_next or not again)
        if not goes_on:
            return _DROP, at
    if link.begins and is_next:
        return _PASS, _follow(at, link)
    if link.begins:
        lost = Missing(at.through + 1, None)
        return _ANEW._replace(lost=lost), _follow(at, link)
    if not at.in_step:
        return _DROP, at
    if not again:
        return _READ_AGAIN, at
    return Verdict(Action.DROP, lost=Missing(at.through + 1, None)), _silence(at, link)


def _follow(at: HostPosition | None, link: Link) -> HostPosition:
    """Return the position after a message that is passed on."""
    return HostPosition(
        link.epoch, link.through, link.id, in_step=True, whole=link.whole, ended=_ended(at, link)
    )


def _silence(at: HostPosition, link: Link) -> HostPosition:
    """Return the position after a message behind a gap."""
    return HostPosition(
        link.epoch, link.through, link.id, in_step=False, whole=False, ended=_ended(at, link)
    )


def _ended(at: HostPosition | None, link: Link) -> tuple[tuple[str, int], ...]:
    """Return the ends of the runs of the agent other than that of a message."""
    if at is None or not at.epoch:
        return ()
    if at.epoch == link.epoch:
        return at.ended
    others = [one for one in at.ended if one[0] not in (link.epoch, at.epoch)]
    return (*others, (at.epoch, at.through))[-MAX_ENDED:]


class Chains:
    """The chains of all hosts of a fleet."""

    def __init__(
        self, positions: Mapping[str, HostPosition] | None = None, *, checkpoints: bool = True
    ) -> None:
        """``positions`` are those of an earlier reader; ``checkpoints``: see ``judge``."""
        self._positions = dict(positions or {})
        self._checkpoints = checkpoints

    @property
    def positions(self) -> Mapping[str, HostPosition]:
        """The position in the stream of each host."""
        return self._positions

    def take(self, host: str, link: Link, *, again: bool = False) -> Verdict:
        """Return what to do with the next message of a host. ``again``: see ``judge``."""
        verdict, position = judge(
            self._positions.get(host), link, again=again, checkpoints=self._checkpoints
        )
        if position is not None:
            self._positions[host] = position
        return verdict
