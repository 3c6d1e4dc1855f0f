"""`python -m local.checkpoints DIR --seed N`: make a checkpoint, and publish it to a local Hub if asked."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from local.checkpoints.checkpoint import write_checkpoint
from local.checkpoints.shape import Shape


def main(argv: list[str] | None = None) -> None:
    """Make one checkpoint; print its folder, or the commit when it was published."""
    parser = argparse.ArgumentParser(prog="python -m local.checkpoints", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, required=True)
    for field in fields(Shape):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default, help="default %(default)s")
    parser.add_argument("--publish", type=Path, metavar="ROOT", help="folder of a local Hub to publish to")
    parser.add_argument("--repo", metavar="ORG/NAME", help="with --publish: the repository")
    parser.add_argument("--branch", default="main", help="with --publish: the branch, default %(default)s")
    given = parser.parse_args(argv)
    if (given.publish is None) != (given.repo is None):
        parser.error("--publish and --repo go together")
    try:
        shape = Shape(**{field.name: getattr(given, field.name) for field in fields(Shape)})
        write_checkpoint(given.folder, seed=given.seed, shape=shape)
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    if given.publish is None:
        print(given.folder)
        return
    from local.hub.repository import publish

    print(publish(given.publish, given.repo, given.folder, branch=given.branch, title=f"Seed {given.seed}"))


if __name__ == "__main__":
    main()
