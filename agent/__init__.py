"""sockagent: report which process opened or closed which socket on this machine.

Data flows in one direction: kernel → snapshot → stream → publish.

- ``kernel`` reads procfs and netlink: bytes to values.
- ``snapshot`` polls: which process holds which socket at one time.
- ``stream`` compares snapshots, and numbers, encodes and keeps the differences.
- ``publish`` sends the stream to standard output and to WebSocket clients.

``remote`` follows the streams of other agents, ``service`` is the integration with systemd. The
modules beside these folders are values and helpers that all of them use (model, errors, log, text,
bounded, address) or the application (``app`` wires everything). No folder imports one that comes
after it, and none imports the application: tests/test_layout.py.
"""

__version__ = "0.1.0"
