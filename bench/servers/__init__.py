"""Reports of ``sockagent --follow`` compared with the logs of real servers and their clients."""
