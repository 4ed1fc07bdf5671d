"""Micro-benchmarks: each measures an optimisation against its alternative."""
