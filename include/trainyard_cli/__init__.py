"""The `trainyard` command: for people at a terminal."""
