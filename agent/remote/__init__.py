"""Feeds of remote agents."""
