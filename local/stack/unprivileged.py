"""Run a command as somebody who is not root: PostgreSQL refuses to be root.

    python -m local.stack.unprivileged [--folder DIR] -- COMMAND...

An ordinary user's command is run as it is. For root there are two ways, tried in order:

1. A user namespace in which our uid 0 has another number. The kernel still lets it at root's files, so data
   and binaries may lie below a folder that only root may enter, and no file changes its owner.
2. Where user namespaces are switched off, as in many containers: another uid outright. `--folder` is given to
   it, and it keeps root's right to pass any folder (CAP_DAC_OVERRIDE), for the same reason.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pwd
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 47, 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522


def ordinary_user() -> pwd.struct_passwd:
    """Somebody who is not root. PostgreSQL looks its own uid up, so it has to have a name."""
    users = [user for user in pwd.getpwall() if user.pw_uid != 0]
    preferred = [user for name in ("postgres", "nobody") for user in users if user.pw_name == name]
    if not (preferred or users):
        raise SystemExit(
            "this machine has no user besides root, and PostgreSQL refuses to run as root: add one"
        )
    return (preferred or users)[0]


def enter_user_namespace(user: pwd.struct_passwd) -> bool:
    """Become `user` in a user namespace of our own; False when this kernel does not let us."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user.pw_uid} 0 1")
    Path("/proc/self/gid_map").write_text(f"{user.pw_gid} 0 1")
    return True


def hand_over(folder: Path, user: pwd.struct_passwd) -> None:
    """Give a folder and all in it to `user`: PostgreSQL wants to own its data."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def become(user: pwd.struct_passwd) -> None:
    """Change to `user`'s uid for good, keeping only the right to pass folders.

    Without that right (a container may lack it) only folders that everybody may enter will do.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    bit = 1 << CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(
        bit, bit, bit
    )  # effective, permitted, inheritable; then the upper 32 of each
    if libc.capset(header, data) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="what the command writes to")
    parser.add_argument("--no-namespace", action="store_true", help="go straight to the second way")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if os.geteuid() == 0:
        user = ordinary_user()
        if options.no_namespace or not enter_user_namespace(user):
            if options.folder:
                hand_over(options.folder, user)
            become(user)
            for path in filter(None, (options.folder, Path(options.command[0]))):
                # Not os.access: it asks for the real uid and forgets capabilities.
                if not path.exists():
                    raise SystemExit(
                        f"{user.pw_name} cannot reach {path}, and this kernel allows no user namespaces: "
                        "keep checkout and --home where all may enter (/opt, say), or be an ordinary user"
                    )
    os.chdir(options.folder or "/")
    os.execv(options.command[0], options.command)


if __name__ == "__main__":
    main()
