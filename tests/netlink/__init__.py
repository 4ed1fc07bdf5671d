"""Tests of agent.netlink."""
