"""The JSON Schema of every record, and the type of every field.

The tests hold what the agent prints against it, both ways: every record fits, and no field is
told here that none has.
"""

from __future__ import annotations

import json
from typing import Any

from ..model import INET_FAMILIES, MAX_LISTED_FDS
from .encoder import SCHEMA_VERSION
from .filters import DIRECTIONS, STATES

Schema = dict[str, Any]


def _nullable(kind: str, text: str, **more: object) -> Schema:
    return {"type": [kind, "null"], "description": text, **more}


def _port(text: str) -> Schema:
    # Netlink port ids are 32 bits wide.
    return _nullable("integer", text, minimum=0, maximum=2**32 - 1)


def _amount(text: str) -> Schema:
    return {"type": "number", "minimum": 0, "description": text}


_TIME = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-.*\.\d{6}Z$"}
_COUNT = {"type": "integer", "minimum": 0}

_COMMON: Schema = {
    "event": {"type": "string", "description": "What the record tells."},
    "seq": {**_COUNT, "description": "Number of the delta, or of the newest one included."},
    "time": {**_TIME, "description": "When the agent saw it; RFC 3339, UTC."},
    "host": {"type": "string", "description": "The machine's host name."},
}
_COVERAGE: Schema = {
    "complete": {"type": "boolean", "description": "Whether nothing was out of sight."},
    "processes": {**_COUNT, "description": "Processes looked at."},
    "unreadable": {**_COUNT, "description": "Processes whose descriptors may not be read."},
    "netns": {**_COUNT, "description": "Network namespaces read."},
    "missing": {
        "type": "array",
        "items": {"type": "string"},
        "description": "One sentence for each thing that was not seen.",
    },
}
_SOCKET: Schema = {
    "proto": _nullable("string", "tcp, udp, udplite, raw, icmp, unix, netlink, packet, ..."),
    "family": _nullable("string", "inet, inet6, unix, netlink, packet, ..."),
    "state": _nullable("string", "The state as the kernel names it.", enum=[*STATES, None]),
    "direction": _nullable("string", "Which side began the connection.", enum=[*DIRECTIONS, None]),
    "recv_q": _nullable("integer", "Bytes not yet read; of a listener, connections waiting."),
    "send_q": _nullable("integer", "Bytes not yet acknowledged."),
    "inode": _nullable("integer", "The socket's inode; null where no process can hold it."),
    "netns": _nullable("integer", "Inode of the network namespace."),
    "uid": _nullable("integer", "User id of the socket's owner."),
    "user": _nullable("string", "The owner's name."),
    "source": {"type": "string", "description": "The reader that saw it."},
    "pid": _nullable("integer", "The holder; null when it cannot be seen."),
}
_ENDPOINTS: Schema = {
    "local_addr": _nullable("string", "Local address; canonical text."),
    "local_port": _port("Local port."),
    "remote_addr": _nullable("string", "Remote address; null without a peer."),
    "remote_port": _port("Remote port; null without a peer."),
}
_INET: Schema = {
    **_ENDPOINTS,
    "interface": _nullable("string", "The interface that it is bound to."),
}
_LISTENER: Schema = {
    "backlog": _nullable("integer", "Of a listener: connections that it lets wait.", minimum=0),
}
_PLACE: Schema = {
    "cgroup": _nullable("string", "Path of its cgroup."),
    "unit": _nullable("string", "Its systemd unit."),
    "container": _nullable("string", "Id or name of its container."),
}
_UNIX: Schema = {
    "path": _nullable("string", "Path; @... for an abstract name."),
    "type": _nullable("string", "Kind of socket.", enum=["stream", "dgram", "seqpacket", None]),
    "peer_inode": _nullable("integer", "Inode of the socket at the other end."),
    "peer_pid": _nullable("integer", "A holder of that, when known; changes make no update."),
}
_PROCESS: Schema = {
    "fds": {
        "type": "array",
        "items": _COUNT,
        "maxItems": MAX_LISTED_FDS,
        "description": f"Its lowest descriptors on the socket, at most {MAX_LISTED_FDS}.",
    },
    "fd_count": {**_COUNT, "description": "How many descriptors it has on the socket."},
    "comm": {"type": "string", "description": "The process's name."},
    "exe": _nullable("string", "Path of its program."),
    "ppid": {**_COUNT, "description": "Its parent."},
    "start_time": {**_TIME, "description": "When it started; with the pid its identity."},
    **_PLACE,
}
_OPTIONAL: Schema = {
    "cmdline": {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "description": "Its command line, with --cmdline.",
    },
}
_CHANGED: Schema = {
    "previous": {"type": "object", "description": "The old values of what changed."},
}
_ENDED: Schema = {
    "reason": {"enum": ["closed", "exited", "attributed", "filtered"], "description": "Why."},
    "duration_ms": _nullable(
        "integer", "How long it was open; null when it was before the agent looked.", minimum=0
    ),
}
_HELLO: Schema = {
    "schema": {"const": SCHEMA_VERSION, "description": "Version of this schema."},
    "version": {"type": "string", "description": "The agent's version."},
    "boot_id": _nullable("string", "The kernel's id of this boot."),
    "epoch": {"type": "string", "description": "Random id of this run of the agent."},
    "interval": {"type": "number", "description": "Seconds between polls."},
    "resumed": {"type": "boolean", "description": "Whether the stream goes on where it was."},
    **_COVERAGE,
}
_FIGURES: Schema = {
    "polls": {**_COUNT, "description": "Polls since the agent started."},
    "poll_ms": _amount("Median duration of a poll; of the newest 600, as all that follows."),
    "poll_p99_ms": _amount("99th percentile of that."),
    "poll_cpu_ms": _amount("The agent's CPU time, per poll."),
    "processes_walked": _amount("Processes looked at, per poll."),
    "descriptors_read": _amount("Descriptors read, per poll."),
    "rows_decoded": _amount("Rows of tables decoded, per poll."),
    "late_polls": {**_COUNT, "description": "Polls that ended too late, since the start."},
}


def _record(event: str, fields: Schema, *, optional: Schema | None = None) -> Schema:
    properties = {**_COMMON, "event": {"const": event}, **fields}
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
        "additionalProperties": False,
    }


def _sockets(event: str, more: Schema) -> list[Schema]:
    """A socket record's forms: with addresses or a path, with a holder or without."""
    kinds = (
        (_INET, {"enum": sorted(INET_FAMILIES)}),
        (_ENDPOINTS, {"not": {"enum": [*sorted(INET_FAMILIES), "unix"]}}),
        (_UNIX, {"const": "unix"}),
    )
    forms = []
    for names, family in kinds:
        socket = {**_SOCKET, **names, **more}
        socket["family"] = {**socket["family"], **family}
        held = {**socket, "pid": {**_COUNT, "description": _SOCKET["pid"]["description"]}}
        nameless = {**socket, "pid": {"type": "null"}}
        forms.append(_record(event, {**held, **_PROCESS}, optional={**_OPTIONAL, **_LISTENER}))
        forms.append(_record(event, nameless, optional={**_PLACE, **_LISTENER}))
    return forms


def schema() -> Schema:
    """The JSON Schema (draft 2020-12) of one record."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sockagent record",
        "oneOf": [
            _record("hello", _HELLO),
            *_sockets("snapshot", {}),
            _record("snapshot_end", {"count": {**_COUNT, "description": "Records before it."}}),
            *_sockets("open", {}),
            *_sockets("update", _CHANGED),
            *_sockets("close", _ENDED),
            _record("coverage", _COVERAGE),
            _record("lost", {"from": _COUNT, "to": {**_COUNT, "type": ["integer", "null"]}}),
            _record("heartbeat", _FIGURES),
        ],
    }


def schema_text() -> str:
    """The schema as text."""
    return json.dumps(schema(), indent=2) + "\n"
