"""What a user did, from audit logs; `python -m local.apiserver.usage USER FILE...` prints it line by line.

A log that was rotated is read with the older files beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from local.apiserver.audit import ALSO
from local.apiserver.errors import Object


class Permission(NamedTuple):
    """`namespace` is "" for requests at the cluster scope, `resource` is `pods` or `pods/log`."""

    namespace: str
    group: str
    resource: str
    verb: str


def events(log: Path) -> Iterator[Object]:
    """The events of a log, oldest first; a line that was cut off by a crash is passed over."""
    backups = [file for file in log.parent.glob(f"{log.name}.*") if file.suffix[1:].isdigit()]
    for file in (*sorted(backups, key=lambda backup: -int(backup.suffix[1:])), log):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)


def permissions(found: Iterable[Object], user: str, *, refused: bool = False) -> set[Permission]:
    """The permissions that a user's requests took, or with `refused` those that they lacked."""
    result: set[Permission] = set()
    for event in found:
        where, who = event.get("objectRef"), event.get("impersonatedUser") or event["user"]
        code = event.get("responseStatus", {}).get("code")
        if where is None or who.get("username") != user or (code == 403) is not refused:
            continue
        sub = where.get("subresource")
        resource = f"{where['resource']}/{sub}" if sub else where["resource"]
        also = event.get("annotations", {}).get(ALSO, "")
        verbs = [event["verb"], *filter(None, also.split(","))]
        for verb in verbs[-1:] if refused else verbs:  # what is lacking ends the request
            place = where.get("namespace", "")
            result.add(Permission(place, where.get("apiGroup", ""), resource, verb))
    return result


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    found = [event for name in sys.argv[2:] for event in events(Path(name))]
    for title, refused in (("used", False), ("refused", True)):
        for entry in sorted(permissions(found, sys.argv[1], refused=refused)):
            print(f"{title}\t{entry.namespace or '(cluster)'}\t{entry.group}\t{entry.resource}\t{entry.verb}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
