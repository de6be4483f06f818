# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems from Debian's packages: the base of the service images, and nodes with systemd."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import _host
from _engine import docker, forget_older, image_exists, run
from _settings import CACHE, IMAGES, LABEL, content_hash, step, tree_hash

# What looks after hardware fails in a container or waits for ever, and systemd-sysctl would set this machine's kernel.
MASKED = (
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-firstboot.service",
    "getty.target",
    "console-getty.service",
    "dev-hugepages.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
)
# Nobody reads manuals in here; locales stay out as well, C.UTF-8 is part of libc.
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")


def spec(name: str) -> dict[str, Any] | None:
    file = IMAGES / name / "rootfs.json"
    return json.loads(file.read_text()) if file.is_file() else None


def image(name: str) -> str:
    """The full name that this root file system has as an image."""
    wanted = spec(name)
    assert wanted is not None, name
    parts = [tree_hash(IMAGES / name), *MASKED, *EXCLUDED, *_host.apt_settings()]
    if "overlay" in wanted:
        parts.append(tree_hash(IMAGES / wanted["overlay"]))
    return f"llmops-world/{name}:{content_hash(parts)}"


def ensure(name: str) -> str:
    full = image(name)
    if not image_exists(full):
        _host.require("mmdebstrap")
        wanted = spec(name)
        assert wanted is not None
        with step(f"{name}: Debian {wanted['suite']} from its packages"):
            _bootstrap(full, wanted)
        forget_older(full)
    return full


def _bootstrap(full: str, wanted: dict[str, Any]) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="rootfs-") as scratch:
        archive = Path(scratch) / "rootfs.tar"
        run(*_command(wanted, archive), env={**os.environ, "TMPDIR": scratch})
        command = json.dumps(wanted.get("command", ["/bin/sh"]))
        docker("import", "--change", f"CMD {command}", "--change", f"LABEL {LABEL}", str(archive), full)


def _command(wanted: dict[str, Any], archive: Path) -> list[str]:
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(wanted['packages'])}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    command += [f"--aptopt={line.rstrip(';')}" for line in _host.apt_settings()]
    command.append('--aptopt=Acquire::Languages "none"')
    # mmdebstrap itself never installs recommended packages; what it builds should behave like its kind.
    recommends = "true" if wanted["recommends"] else "false"
    command.append(
        f'--customize-hook=echo \'APT::Install-Recommends "{recommends}";\' >"$1/etc/apt/apt.conf.d/90recommends"'
    )
    if "overlay" in wanted:
        command.append(f"--customize-hook=sync-in {IMAGES / wanted['overlay']} /")
        command.append('--customize-hook=chroot "$1" systemctl enable world-cgroups.service world-names.service')
        command.append(f'--customize-hook=chroot "$1" systemctl mask {" ".join(MASKED)}')
        command.append('--customize-hook=rm -f "$1/usr/sbin/policy-rc.d" "$1/etc/machine-id" "$1/etc/hostname"')
        command.append('--customize-hook=: >"$1/etc/machine-id"')
    return [*command, wanted["suite"], str(archive), *filter(None, [_host.debian_mirror()])]
