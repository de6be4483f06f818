# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module util is PRIVATE to the collection; it may change without notice.

"""The host that is looked at: its files below a root, its programs, its accounts. Nothing in here may fail."""

from __future__ import annotations

import hashlib
import os
import subprocess
import typing as t

from ansible_collections.llmops.stack.plugins.module_utils._files import ENTER, granted

BIN_DIRS = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin", "snap/bin")

Runner = t.Callable[..., "tuple[int, str]"]


def run_command(argv: list[str], timeout: float = 5.0) -> tuple[int, str]:
    """Run a program; rc 127 and no output when it is missing, stuck or not allowed."""
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout, env=env, check=False, text=True, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return 127, ""
    return done.returncode, done.stdout


class Host:
    """`root` and `run` let a test hand in a made-up one."""

    def __init__(self, root: str = "/", deadline: float = 5.0, run: Runner = run_command) -> None:
        self.root = root
        self.deadline = deadline
        self.run = run

    # -- files -----------------------------------------------------------------

    def at(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def read(self, path: str) -> str:
        return self.read_bytes(path).decode("utf-8", "replace").replace("\r\n", "\n")

    def read_bytes(self, path: str) -> bytes:
        try:
            with open(self.at(path), "rb") as handle:
                return handle.read()
        except OSError:
            return b""

    def names(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self.at(path)))
        except OSError:
            return []

    def link(self, path: str) -> str:
        try:
            return os.readlink(self.at(path))
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        return os.path.exists(self.at(path))

    def realpath(self, path: str) -> str:
        """Where the links in a path lead, as a path below the root; what does not exist yet is kept as it is."""
        inside = os.path.relpath(os.path.realpath(self.at(path)), os.path.realpath(self.root))
        return os.path.normpath(f"/{inside}")

    def sha256(self, path: str) -> str:
        if not os.path.isfile(self.at(path)):
            return ""
        return hashlib.sha256(self.read_bytes(path)).hexdigest()

    def which(self, name: str) -> str:
        for directory in BIN_DIRS:
            if os.access(self.at(f"{directory}/{name}"), os.X_OK):
                return f"/{directory}/{name}"
        return ""

    # -- accounts --------------------------------------------------------------

    def groups(self) -> dict[str, tuple[int, list[str]]]:
        """Each group's number and members."""
        found = {}
        for line in self.read("etc/group").splitlines():
            fields = line.split(":")
            if len(fields) == 4 and fields[2].isdigit():
                found[fields[0]] = (int(fields[2]), [name for name in fields[3].split(",") if name])
        return found

    def user(self, name: str) -> dict[str, t.Any]:
        state: dict[str, t.Any] = {
            "name": name, "exists": False, "uid": -1, "gid": -1, "group": "", "home": ""
        }  # fmt: skip
        for line in self.read("etc/passwd").splitlines():
            fields = line.split(":")
            if len(fields) == 7 and fields[0] == name and fields[2].isdigit() and fields[3].isdigit():
                state.update(exists=True, uid=int(fields[2]), gid=int(fields[3]), home=fields[5])
        if state["exists"]:
            state["group"] = next((group for group, (gid, _m) in self.groups().items() if gid == state["gid"]), "")
        return state

    def name_of(self, path: str, number: int) -> str:
        """The name in a table of accounts (etc/passwd, etc/group), or the number itself."""
        fields = (line.split(":") for line in self.read(path).splitlines())
        return next((entry[0] for entry in fields if len(entry) > 2 and entry[2] == str(number)), str(number))

    def blocked_for(self, user: dict[str, t.Any], path: str) -> str:
        """The first folder above `path`, below /, that this user may not pass through; empty without one."""
        if user["uid"] == 0:
            return ""
        path = self.realpath(path)
        groups = {user["gid"], *(gid for gid, members in self.groups().values() if user["name"] in members)}
        parts = [part for part in path.split("/")[:-1] if part]
        for count in range(1, len(parts) + 1):
            folder = "/" + "/".join(parts[:count])
            try:
                seen = os.stat(self.at(folder))
            except OSError:  # it is still to be made
                return ""
            if not granted(seen, user["uid"], groups, ENTER) and not self._has_acl(folder):
                return folder
        return ""

    def _has_acl(self, path: str) -> bool:
        """An access list may let somebody in whom the mode keeps out."""
        try:
            return bool(os.getxattr(self.at(path), "system.posix_acl_access"))
        except OSError:
            return False
