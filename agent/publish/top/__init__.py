"""The live screen. Pure but for ``screen``, ``grid``, ``dialogs`` and ``signal``: time is an
argument, in seconds since the Unix epoch."""
