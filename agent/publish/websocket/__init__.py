"""WebSocket server of the live feed."""
