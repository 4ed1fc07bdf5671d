"""Benchmarks and stress tests of sockagent: ``python -m bench SUBJECT``."""
