"""Fleets: the streams of many agents, read from a broker."""
