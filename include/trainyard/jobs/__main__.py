"""Entry of every job. What runs inside a server's container takes a short cut: it runs every few seconds, or
while somebody waits, and needs nothing of the rest."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the job that the first argument names; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    name, rest = (given[0], given[1:]) if given else ("", [])
    if name == "probe":
        from trainyard.jobs.probe import main as probe

        return probe(rest)
    if name == "quiesce":
        from trainyard.jobs.quiesce import main as quiesce

        return quiesce(rest)
    if name == "evidence":
        from trainyard.jobs.evidence import main as evidence

        return evidence(rest)
    from trainyard.jobs.runtime import main as run

    return run(name, rest)


if __name__ == "__main__":
    sys.exit(main())
