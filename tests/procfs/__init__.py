"""The tests of sockagent."""
