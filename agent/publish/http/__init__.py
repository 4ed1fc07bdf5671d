"""Plain HTTP answers of the WebSocket server."""
