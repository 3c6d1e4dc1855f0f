"""Triggers: what waits, so that no worker does."""
