"""procfs as a source: pure parsers, and the one reader that opens its files."""
