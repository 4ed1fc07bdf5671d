"""Kernel interfaces: bytes from procfs and netlink to values."""
