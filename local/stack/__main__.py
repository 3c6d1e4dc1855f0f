"""`python -m local.stack up | down | status | restart SERVICE | exec -- COMMAND`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import commands
from .home import Home
from .launch import NotPossible, Request
from .ports import NoFreePort
from .service import UnknownService
from .services.setting import NotInstalled
from .supervisor import StartFailed


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.stack", description="The local stack on loopback.")
    commands_ = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands_.add_parser(name, help=text, description=text)
        command.add_argument("--home", help="state folder (default: TRAINYARD_HOME, else .trainyard here)")
        return command

    for name, text in (("up", "start, and wait until all is ready"), ("supervise", argparse.SUPPRESS)):
        up = add(name, text)
        up.add_argument("--only", default="", metavar="NAMES", help="these and what they need, by commas")
        up.add_argument(
            "--kubeconfig",
            type=Path,
            default=os.environ.get("TRAINYARD_KUBECONFIG") or None,
            help="use this control plane instead of the local API server (default: TRAINYARD_KUBECONFIG)",
        )
        up.add_argument("--pod-cidr", default="", help="address range of pods (default: 127.64.0.0/12)")
        up.add_argument(
            "--dags",
            type=Path,
            action="append",
            default=[],
            metavar="DIR",
            help="a folder of DAGs besides our own",
        )
        up.add_argument("--foreground", action="store_true", help="stay, and stop everything on Ctrl-C")
    down = add("down", "stop everything, also what a killed supervisor left behind")
    down.add_argument("--wipe", action="store_true", help="and delete all state")
    status = add("status", "what runs where")
    status.add_argument("--json", action="store_true", help="as stack.json says it")
    add("restart", "stop one service; its supervisor starts it again").add_argument("service")
    execute = add("exec", "run a command in the environment of the stack's clients")
    execute.add_argument("words", nargs="+", metavar="-- COMMAND")
    return parser


def main() -> int:
    """Exit status: 0 when done, 1 when it could not be, with the reason on standard error."""
    given = arguments().parse_args()
    home = Home.at(given.home)
    try:
        match given.command:
            case "up" | "supervise":
                kubeconfig = Path(given.kubeconfig).expanduser().resolve() if given.kubeconfig else None
                dags = tuple(folder.expanduser().resolve() for folder in given.dags)
                only = tuple(filter(None, given.only.split(",")))
                request = Request(home, only, kubeconfig, given.pod_cidr, dags)
                if given.command == "supervise":
                    return commands.supervise(request)
                return commands.up_in_foreground(request) if given.foreground else commands.up(request)
            case "down":
                return commands.down(home, wipe=given.wipe)
            case "status":
                return commands.status(home, as_json=given.json)
            case "restart":
                return commands.restart(home, given.service)
            case _:
                return commands.execute(home, given.words)
    except (NotPossible, NoFreePort, NotInstalled, UnknownService, StartFailed, OSError) as error:
        print(f"local.stack: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
