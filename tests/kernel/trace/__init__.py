"""Tests of agent.kernel.trace."""
