"""Fleets at a NATS broker: processes that are killed, and a thousand hosts."""
