"""Pages of the WebSocket server: health and metrics."""
