"""sockagent: which process opened or closed which socket on this machine, as a stream."""

__version__ = "0.1.0"
