"""Read the captured files, which README.md describes."""

from pathlib import Path

_HERE = Path(__file__).parent

# The id that every container in ``cgroup/`` has, and the tables in ``net/``.
CONTAINER_ID = "3f4a9c07d2b15e6887c0a1f2e3d4b5c60718293a4b5c6d7e8f90a1b2c3d4e5f6"
TABLES = (
    "tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6", "unix",
    "netlink", "packet",
)  # fmt: skip


def capture(name: str) -> bytes:
    """Return the content of a captured file, for example ``net/tcp``."""
    return (_HERE / name).read_bytes()


def names(directory: str) -> list[str]:
    """Return the names of the captured files in a directory."""
    return sorted(path.name for path in (_HERE / directory).iterdir())
