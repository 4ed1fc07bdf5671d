"""Publish the stream of an agent at NATS JetStream."""
