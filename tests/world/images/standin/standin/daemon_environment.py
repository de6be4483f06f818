# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plugin environments: from a package file to a directory in which `.venv/bin/python -m main` can run.

What a package needs, uv really installs, from the index and with the arguments and variables that the daemon's own
settings leave it. A package that needs nothing gets the daemon's own Python instead, and with it what the light plugin
of daemon_plugin.py imports: that works where there is neither uv nor an index.

The fault "install" ("fail:<message>", "slow:<seconds>") comes before the installer in both.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from pathlib import Path

from standin import daemon_installer, daemon_package, faults
from standin.daemon_config import Config
from standin.daemon_installer import InstallerFailed
from standin.daemon_log import Log
from standin.daemon_versions import Generation

OWN_SECONDS = float(os.environ.get("STANDIN_INSTALL_SECONDS") or 2)
MARKER = Path(".venv/dify/plugin.json")
PYTHON = Path(".venv/bin/python")
# A requirement, not a comment, an option of the installer or an empty line.
REQUIREMENT = re.compile(r"^\s*[A-Za-z0-9]", re.MULTILINE)


class EnvironmentFailed(Exception):
    """Why the environment cannot be built, as the installer says it."""


def directory(config: Config, identifier: str) -> Path:
    """<working path>/<author>/<name>-<version>@<checksum>"""
    return config.working_path / identifier.replace(":", "-")


def short_name(identifier: str) -> str:
    return identifier.split("@")[0]


def own(target: Path) -> bool:
    """Whether the plugin runs in the daemon's own Python."""
    return not (target / ".venv" / "pyvenv.cfg").is_file()


def prepare(config: Config, behaviour: Generation, identifier: str, package_file: Path, log: Log) -> Path:
    """Unpack and build what is missing; raises EnvironmentFailed."""
    target = directory(config, identifier)
    if (target / MARKER).is_file():
        if (target / PYTHON).exists():
            return target
        if not behaviour.rebuilds_broken_venv:
            raise EnvironmentFailed("failed to find python: stat .venv/bin/python: no such file or directory")
    shutil.rmtree(target / ".venv", ignore_errors=True)
    if not target.is_dir() or not any(target.iterdir()):
        _unpack(package_file, target)
    try:
        _build(config, behaviour, target, log)
    except InstallerFailed as error:
        raise EnvironmentFailed(f"{error}\nfailed to init environment") from error
    marker = target / MARKER
    marker.parent.mkdir(parents=True)
    marker.write_text("{}\n", encoding="utf-8")
    return target


def _build(config: Config, behaviour: Generation, target: Path, log: Log) -> None:
    if not any((target / name).is_file() for name in ("pyproject.toml", "requirements.txt")):
        raise InstallerFailed(
            "failed to create virtual environment: failed to find dependency file: neither pyproject.toml "
            "nor requirements.txt found in plugin directory"
        )
    fault = faults.get("install", "plugin_daemon")
    daemon_installer.silence(config, faults.seconds(fault))
    if fault.startswith("fail:"):
        raise daemon_installer.refused("exit status 1", f"error: {fault.removeprefix('fail:')}\n")
    if _needs_something(target):
        daemon_installer.install(config, behaviour, target, log)
        return
    time.sleep(OWN_SECONDS)
    python = target / PYTHON
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)


def _needs_something(target: Path) -> bool:
    requirements = target / "requirements.txt"
    if (target / "pyproject.toml").is_file() or not requirements.is_file():
        return True
    return REQUIREMENT.search(requirements.read_text(encoding="utf-8")) is not None


def _unpack(package_file: Path, target: Path) -> None:
    try:
        package = daemon_package.read(package_file.read_bytes())
    except (OSError, daemon_package.PackageError) as error:
        raise EnvironmentFailed(f"open {package_file}: {getattr(error, 'strerror', '') or error}".lower()) from error
    for name, content in package.files.items():
        path = target / name
        if target.resolve() not in path.resolve().parents:
            raise EnvironmentFailed(f"illegal path in package: {name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
