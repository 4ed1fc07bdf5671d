"""The JSON Schema of every record.

Tests compare it with the records both ways: every record is valid, and every field occurs.
"""

from __future__ import annotations

import json
from typing import Any

from ..model import ATTRIBUTIONS, INET_FAMILIES, MAX_LISTED_FDS, UDP_ATTRIBUTION
from .encoder import SCHEMA_VERSION
from .filters import DIRECTIONS, STATES

Schema = dict[str, Any]
# Ends the descriptions of a heartbeat: an agent that is never silent sends none to a relay.
_UNKNOWN = "Null from a relay that has not got it."


def _nullable(kind: str, text: str, **more: object) -> Schema:
    return {"type": [kind, "null"], "description": text, **more}


def _port(text: str) -> Schema:
    # Netlink port ids are 32 bits wide.
    return _nullable("integer", text, minimum=0, maximum=2**32 - 1)


def _count(text: str) -> Schema:
    return {"type": "integer", "minimum": 0, "description": text}


def _amount(text: str) -> Schema:
    return {"type": "number", "minimum": 0, "description": text}


def _known_count(text: str) -> Schema:
    return _nullable("integer", f"{text} {_UNKNOWN}", minimum=0)


def _known_amount(text: str) -> Schema:
    return _nullable("number", f"{text} {_UNKNOWN}", minimum=0)


def _time(text: str) -> Schema:
    pattern = r"^\d{4}-.*\.\d{6}Z$"
    return {"type": "string", "format": "date-time", "pattern": pattern, "description": text}


_COMMON: Schema = {
    "event": {"type": "string", "description": "Kind of record."},
    "seq": _count("Number of the change; in other records, of the newest change included."),
    "time": _time(
        "When it happened, if time_source is event; otherwise when the agent saw it; RFC 3339, UTC."
    ),
    "host": {"type": "string", "description": "Host name of the machine."},
}
_COVERAGE: Schema = {
    "complete": {"type": "boolean", "description": "Whether the agent could read everything."},
    "processes": _count("Number of processes."),
    "unreadable": _count("Processes whose descriptors the agent may not read."),
    "netns": _count("Network namespaces whose sockets were read."),
    "missing": {
        "type": "array",
        "items": {"type": "string"},
        "description": "One sentence for each thing that could not be read.",
    },
    "events": {
        "type": "boolean",
        "description": "Whether the kernel's trace events are read.",
    },
    "events_off": _nullable("string", "Why trace events are not read; null if they are."),
}
_SOCKET: Schema = {
    "proto": _nullable(
        "string", "Protocol: tcp, udp, udplite, raw, icmp, unix, netlink, packet, ..."
    ),
    "family": _nullable("string", "Address family: inet, inet6, unix, netlink, packet, ..."),
    "state": _nullable(
        "string", "State of the socket, as the kernel names it.", enum=[*STATES, None]
    ),
    "direction": _nullable(
        "string",
        "Whether this end accepted the connection, began it, or listens.",
        enum=[*DIRECTIONS, None],
    ),
    "recv_q": _nullable(
        "integer", "Bytes received and not read yet; of a listener, connections not accepted yet."
    ),
    "send_q": _nullable("integer", "Bytes sent and not acknowledged yet."),
    "inode": _nullable("integer", "Inode of the socket; null if no process can hold it."),
    "netns": _nullable("integer", "Inode of the network namespace of the socket."),
    "uid": _nullable("integer", "User id of the owner of the socket."),
    "user": _nullable("string", "User name of the owner of the socket."),
    "source": {
        "type": "string",
        "description": "Where the socket was read: netlink, procfs, or events: only trace events "
        "showed it.",
    },
    "pid": _nullable("integer", "Process that holds the socket; null if it is not known."),
}
_ENDPOINTS: Schema = {
    "local_addr": _nullable("string", "Local address, in canonical form."),
    "local_port": _port("Local port."),
    "remote_addr": _nullable("string", "Remote address; null if not connected."),
    "remote_port": _port("Remote port; null if not connected."),
}
_INET: Schema = {
    **_ENDPOINTS,
    "interface": _nullable("string", "Network interface to which the socket is bound."),
}
_LISTENER: Schema = {
    "backlog": _nullable(
        "integer", "Of a listener: how many connections may wait to be accepted.", minimum=0
    ),
}
_PLACE: Schema = {
    "cgroup": _nullable("string", "Path of the cgroup."),
    "unit": _nullable("string", "systemd unit."),
    "container": _nullable("string", "Id or name of the container."),
}
_UNIX: Schema = {
    "path": _nullable(
        "string", "Path to which the socket is bound; @... if abstract, null if unnamed."
    ),
    "type": _nullable("string", "Type of socket.", enum=["stream", "dgram", "seqpacket", None]),
    "peer_inode": _nullable("integer", "Inode of the socket at the other end."),
    "peer_pid": _nullable(
        "integer", "A process that holds the other end; its change alone is not an update."
    ),
}
_PROCESS: Schema = {
    "fds": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0},
        "maxItems": MAX_LISTED_FDS,
        "description": f"Descriptors of the process on the socket, the {MAX_LISTED_FDS} lowest.",
    },
    "fd_count": _count("Number of descriptors of the process on the socket."),
    "comm": {"type": "string", "description": "Name of the process."},
    "exe": _nullable("string", "Path of the program."),
    "ppid": _count("Process id of the parent."),
    "start_time": _time("When the process started; identifies it together with the pid."),
    **_PLACE,
}
_OPTIONAL: Schema = {
    "cmdline": {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "description": "Command line of the process, with --cmdline.",
    },
}
_TIMED: Schema = {
    "time_source": {
        "enum": ["event", "poll"],
        "description": "event: time is when the change happened, as the kernel reported it; poll: "
        "time is that of the poll that found the change.",
    },
}
_UNSEEN: Schema = {
    "attribution": _nullable(
        "string",
        "Of a TCP socket that no poll saw, how its process was found. connect: it connected or "
        "listened; close: it held the socket last, or shut it down; listener: a guess, the only "
        "holder of the listener; null: no process was found.",
        enum=[*ATTRIBUTIONS, None],
    ),
}
_SENT: Schema = {
    "attribution": {
        "const": UDP_ATTRIBUTION,
        "description": "Of a UDP socket that no poll saw, how its process was found. route: a "
        "guess, the only process that sent from the port of the socket.",
    },
}
_FIGURES: Schema = {
    "bytes_sent": _nullable(
        "integer", "Bytes sent over TCP, those sent again included.", minimum=0
    ),
    "bytes_received": _nullable(
        "integer", "Bytes received over TCP; the end of the stream counts as one.", minimum=0
    ),
    "segments_out": _nullable("integer", "TCP segments sent.", minimum=0),
    "segments_in": _nullable("integer", "TCP segments received.", minimum=0),
    "retransmits": _nullable("integer", "TCP segments sent again.", minimum=0),
    "rtt_ms": _nullable("number", "Smoothed round-trip time in milliseconds.", minimum=0),
}
_CHANGED: Schema = {
    **_TIMED,
    "previous": {"type": "object", "description": "Previous values of the fields that changed."},
}
_ENDED: Schema = {
    **_TIMED,
    "reason": {
        "enum": ["closed", "exited", "attributed", "filtered"],
        "description": "closed; exited: the process exited; attributed: the holder is now known; "
        "filtered: no longer matches the filter.",
    },
    "duration_ms": _nullable(
        "integer", "How long the socket was open; null if the agent did not see it open.", minimum=0
    ),
}
_HELLO: Schema = {
    "schema": {"const": SCHEMA_VERSION, "description": "Version of this schema."},
    "version": {"type": "string", "description": "Version of the agent."},
    "boot_id": _nullable("string", "Boot id of the kernel."),
    "epoch": {"type": "string", "description": "Random id of this stream of numbers."},
    "interval": {"type": "number", "description": "Seconds between polls."},
    "resumed": {
        "type": "boolean",
        "description": "Whether the stream continues an earlier one; then no snapshot follows.",
    },
    "oldest": _count("Smallest seq after which the agent can resume a stream."),
    **_COVERAGE,
}
_LOST: Schema = {
    "from": _count("Number of the first change that was dropped."),
    "to": {
        **_count("Number of the last one; null after a remote agent was restarted."),
        "type": ["integer", "null"],
    },
}
_STATS: Schema = {
    "polls": _known_count("Polls since the agent started."),
    "poll_ms": _known_amount("Median duration of the newest 600 polls."),
    "poll_p99_ms": _known_amount("99th percentile of the duration of the newest 600 polls."),
    "poll_cpu_ms": _known_amount("CPU time of the agent per poll; mean of the newest 600."),
    "processes_walked": _known_amount("Processes examined per poll; mean of the newest 600."),
    "descriptors_read": _known_amount("Descriptors read per poll; mean of the newest 600."),
    "rows_decoded": _known_amount("Socket table rows decoded per poll; mean of the newest 600."),
    "late_polls": _known_count("Polls since the agent started that ended too late."),
    "tcp_ends": _known_count("TCP sockets since the agent started whose end netlink reported."),
    "tcp_ends_with_events": _known_count("Those of tcp_ends whose end trace events reported too."),
    "events_lost": _known_count("Trace events since the agent started that were lost."),
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
    """Return the forms of a socket record: by family, with a holder and without."""
    inet = {"enum": sorted(INET_FAMILIES)}
    tcp = {"proto": {"const": "tcp", "description": _SOCKET["proto"]["description"]}}
    udp = {"proto": {"const": "udp", "description": _SOCKET["proto"]["description"]}}
    other = {"proto": {**_SOCKET["proto"], "not": {"const": "tcp"}}}
    unseen = {"inode": {"type": "null", "description": _SOCKET["inode"]["description"]}}
    kinds: list[tuple[Schema, Schema]] = [
        (_ENDPOINTS, {"not": {"enum": [*sorted(INET_FAMILIES), "unix"]}}),
        (_UNIX, {"const": "unix"}),
    ]
    if event == "close":
        kinds += [
            (_INET | other, inet),
            (_INET | tcp | _FIGURES, inet),
            (_INET | tcp | unseen | _FIGURES | _UNSEEN, inet),
            (_INET | udp | unseen | _SENT, inet),
        ]
    elif event == "open":
        kinds += [
            (_INET, inet),
            (_INET | tcp | unseen | _UNSEEN, inet),
            (_INET | udp | unseen | _SENT, inet),
        ]
    else:
        kinds += [(_INET, inet)]
    forms = []
    for names, family in kinds:
        socket = {**_SOCKET, **names, **more}
        socket["family"] = {**socket["family"], **family}
        held = {**socket, "pid": _count(_SOCKET["pid"]["description"])}
        forms.append(_record(event, {**held, **_PROCESS}, optional={**_OPTIONAL, **_LISTENER}))
        if names.get("attribution") != _SENT["attribution"]:
            nameless = {**socket, "pid": {"type": "null"}}
            forms.append(_record(event, nameless, optional={**_PLACE, **_LISTENER}))
    return forms


def schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a record."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sockagent record",
        "oneOf": [
            _record("hello", _HELLO),
            *_sockets("snapshot", {}),
            _record("snapshot_end", {"count": _count("Records of the snapshot.")}),
            *_sockets("open", _TIMED),
            *_sockets("update", _CHANGED),
            *_sockets("close", _ENDED),
            _record("coverage", _COVERAGE),
            _record("lost", _LOST),
            _record("heartbeat", _STATS),
        ],
    }


def schema_text() -> str:
    """Return the schema as JSON text."""
    return json.dumps(schema(), indent=2) + "\n"
