"""Run a benchmark: ``python -m bench SUBJECT [options]``."""

from __future__ import annotations

import runpy
import sys

SUBJECTS = {
    "compare": "a snapshot against ss, netstat, lsof and psutil, or against another checkout",
    "views": "the views for people against NDJSON",
    "top": "the live screen: first paint; CPU against --follow",
    "polls": "the CPU time of a poll against ss, or against another checkout; growth; soak",
    "feed": "CPU and memory per WebSocket subscriber, or against another checkout",
    "relay": "CPU per record of a relay, and delays through it and without it",
    "page": "the page in a browser: first rows, frames, memory; CPU of the agent",
    "micro": "optimisations against their alternatives, by the names that comments cite",
    "servers": "reports against the logs of real servers",
    "short_lived": "reports of very short connections against the truth",
    "vm": "any command on the kernel of a Debian package, in an emulated machine",
    "vm_unit": "the installed service in such a machine, which boots Debian's systemd",
    "trace_capture": "record kernel trace events as fixtures for tests",
    "events": "reports and costs of trace events against the logs of real servers; torture",
    "recipes": "the SQL recipes for recordings of a fleet, over a million records",
    "shared": "processes with very many descriptors",
    "fleet": "a fleet at a NATS broker: processes that are killed, a thousand hosts",
    "fuzz_tables": "mutated netlink messages and rows of text",
    "fuzz_feed": "mutated requests and WebSocket frames",
}


def main() -> None:
    """Run the benchmark that the first argument names. Raises SystemExit."""
    subject = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if subject in SUBJECTS:
        del sys.argv[1]
        runpy.run_module(f"bench.{subject}", run_name="__main__", alter_sys=True)
        return
    lines = "\n".join(f"  {name:13} {text}" for name, text in SUBJECTS.items())
    usage = f"usage: python -m bench SUBJECT [options]\n\n{lines}"
    if subject in ("-h", "--help"):
        print(usage)
    else:
        raise SystemExit(f"{usage}\n\nno subject named {subject!r}")


if __name__ == "__main__":
    main()
