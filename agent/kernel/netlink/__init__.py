"""sock_diag as a source of sockets: pure requests and decoding, and the one reader that asks."""
