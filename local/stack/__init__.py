"""One supervisor for everything that a cluster would have, on one machine's loopback.

`python -m local.stack up|down|status|restart`. Home holds all state: `stack.json` says what runs where,
`stack.env` is the environment of every client, `logs/` has one file a service.
"""
