"""One poll: which process holds which socket at one time."""
