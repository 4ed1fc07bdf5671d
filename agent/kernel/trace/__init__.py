"""Trace events of TCP sockets and tasks, read from the ring buffers of tracefs."""
