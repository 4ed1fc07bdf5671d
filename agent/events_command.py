"""The command ``sockagent events``: set up, remove and show the instance that the service reads.

The units of systemd run it as root, so that the service itself does not need to be root.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from .errors import CommandError
from .kernel.trace import instance
from .kernel.trace.instance import SERVICE_INSTANCE, InstanceStatus
from .kernel.trace.udp_events import disable_udp, enable_udp
from .kernel.trace.unavailable import explained
from .log import finish, log

HELP = """\
usage: sockagent events enable [--udp] | disable | status

Set up or remove the trace instance from which the systemd service, or an agent that is not root,
reads kernel events. The service does both itself.

  enable      Set it up: create it, or repair an existing one; requires root. With --udp, also
              record which process sends UDP datagrams, for an agent with --events-udp.
  disable     Remove it; requires root, and that no agent reads it.
  status      Print its state.
  -h, --help  Print this help and exit.

Exit status: 0 done, 1 failure, 2 wrong usage.
"""
_SEE_HELP = "; see sockagent events --help"
_UDP = "--udp"
_CALLS = (("enable",), ("enable", _UDP), ("disable",), ("status",))


def run_events(words: Sequence[str]) -> str:
    """Run the command with the words that follow ``events``; return what to print.

    Raises CommandError and TraceUnavailable.
    """
    if any(word in ("-h", "--help") for word in words):
        return HELP
    if tuple(words) not in _CALLS:
        found = f"not {' '.join(words)!r}" if words else "one of them is required"
        raise CommandError(f"events: expected enable, disable or status, {found}{_SEE_HELP}")
    root = instance.require_tracefs()
    if "enable" in words:
        _enable(root, udp=_UDP in words)
    elif "disable" in words:
        instance.disable(root, SERVICE_INSTANCE)
    else:
        path = instance.path_of(root, SERVICE_INSTANCE)
        return describe(path, instance.status(root, SERVICE_INSTANCE))
    return ""


def _enable(root: str, *, udp: bool) -> None:
    instance.remove_abandoned(root)
    # The service may pause: it has a low priority, and its polls share a thread with its reader.
    wanted = instance.buffer_kib(os.cpu_count() or 1, can_stall=True)
    made = instance.enable(root, SERVICE_INSTANCE, wanted)
    if made.buffer_kib < wanted:
        log(f"warning: trace buffers of {made.buffer_kib} KiB instead of {wanted} KiB for each CPU")
    if not made.filtered:
        log("warning: the kernel refused the filter of events; it records more of them")
    with explained(made.path):
        if not udp:
            disable_udp(made.path)
        elif reason := enable_udp(made.path):
            log(f"warning: {reason}")
    finish()


def describe(path: str, status: InstanceStatus) -> str:
    """Return a few lines about the state of an instance."""
    if not status.exists:
        return f"instance  {path} does not exist; to create it: sudo sockagent events enable\n"
    missing = [event for event in instance.EVENTS if event not in status.events]
    off = f"; off: {' '.join(missing)}" if missing else ""
    lines = {
        "instance": path,
        "state": "on" if status.on else "off",
        "events": (" ".join(status.events) or "none") + off,
        "udp": "on" if status.udp else "off",
        "reader": "an agent" if status.has_reader else "none",
        "buffer": f"{status.buffer_kib} KiB for each of {status.cpus} CPUs",
        "waiting": f"{status.entries} events",
        "lost": f"{status.lost} events",
    }
    return "".join(f"{name:<9} {text}\n" for name, text in lines.items())
