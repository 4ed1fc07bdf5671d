"""Tests of agent.kernel.netlink."""
