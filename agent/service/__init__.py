"""Integration with systemd."""
