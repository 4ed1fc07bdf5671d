"""procfs: pure parsers of its files, and the blocking functions that read them."""
