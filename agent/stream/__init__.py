"""Snapshots to numbered records."""
