"""What happened to a release, for people: `html` (one file, works offline) and `text` (for a task's log)."""
