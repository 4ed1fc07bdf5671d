"""procfs as a source of sockets and processes: pure parsers, and the one reader that opens files."""
