"""Tests on the real machine: real sockets, real processes, the real command."""
