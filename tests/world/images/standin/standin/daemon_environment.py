# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plugin environments: from a package file to a directory in which `.venv/bin/python -m main` can run.

No package index is asked. What an index would say is simulated: names that begin with "no-such-" are unknown to it,
and the fault "install" ("fail:<message>", "slow:<seconds>") stands for everything else that can go wrong on the way.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from standin import daemon_package, faults
from standin.daemon_config import Config
from standin.daemon_versions import Generation

BUILD_SECONDS = float(os.environ.get("STANDIN_INSTALL_SECONDS") or 2)
MARKER = Path(".venv/dify/plugin.json")
PYTHON = Path(".venv/bin/python")


class EnvironmentFailed(Exception):
    """Why the environment cannot be built, as the installer says it."""


def directory(config: Config, identifier: str) -> Path:
    """<working path>/<author>/<name>-<version>@<checksum>"""
    return config.working_path / identifier.replace(":", "-")


def short_name(identifier: str) -> str:
    return identifier.split("@")[0]


def prepare(config: Config, behaviour: Generation, identifier: str, package_file: Path) -> Path:
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
    if not any((target / name).is_file() for name in ("pyproject.toml", "requirements.txt")):
        raise EnvironmentFailed(
            "failed to create virtual environment: failed to find dependency file: neither pyproject.toml "
            "nor requirements.txt found in plugin directory\nfailed to init environment"
        )
    fault = faults.get("install", "plugin_daemon")
    time.sleep(BUILD_SECONDS + faults.seconds(fault))
    if fault.startswith("fail:"):
        raise _dependencies_failed(fault.removeprefix("fail:"))
    _resolve(target)
    python = target / PYTHON
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    marker = target / MARKER
    marker.parent.mkdir(parents=True)
    marker.write_text("{}\n", encoding="utf-8")
    return target


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


def _resolve(target: Path) -> None:
    requirements = target / "requirements.txt"
    for line in requirements.read_text(encoding="utf-8").splitlines() if requirements.is_file() else ():
        if line.startswith("no-such-"):
            name = line.split("=")[0]
            raise _dependencies_failed(
                f"No solution found when resolving dependencies\n  cause: Because {name} was not found in the package "
                f"registry and you require {line}, we can conclude that your requirements are unsatisfiable."
            )


def _dependencies_failed(reason: str) -> EnvironmentFailed:
    output = f"DEBUG uv 0.13.9\nDEBUG Searching for Python interpreter in the virtual environment\nerror: {reason}"
    if len(output) > 1024:
        output = f"{output[:512]}...{output[-512:]}"
    twice = "failed to install dependencies: failed to install dependencies"
    return EnvironmentFailed(f"{twice}: exit status 1, output: {output}\n\nfailed to init environment")
