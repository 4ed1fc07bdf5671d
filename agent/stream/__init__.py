"""Snapshots to a stream of numbered deltas, and its subscriptions."""
