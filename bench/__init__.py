"""How fast sockagent is beside ss, netstat, lsof and psutil: ``python -m bench``."""
