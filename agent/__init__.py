"""Report which process opened or closed which socket on this machine, as a stream.

Data flows through the folders in one order, which imports follow (tests/test_layout.py):

- ``kernel``: bytes from procfs and netlink → values
- ``snapshot``: one poll, or polls in a row → the state of all sockets
- ``stream``: snapshots → numbered records
- ``publish``: records → standard output, WebSocket and HTTP clients

``remote`` (following other agents) and ``service`` (systemd) build on ``stream``. Of the modules
beside them, model, errors, text, bounded, address and log are for all folders; the others, from
cli and app on, use the folders and are used by none.
"""

__version__ = "0.1.0"
