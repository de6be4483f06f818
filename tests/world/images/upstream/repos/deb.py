# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The apt repository: packages named, versioned and laid out as on Docker's own site."""

from __future__ import annotations

import subprocess
from pathlib import Path

from engine import Package

EPOCHS = {"docker-ce": "5:", "docker-ce-cli": "5:"}
RELATIONS = {
    "containerd.io": {
        "Provides": "containerd, runc",
        "Conflicts": "containerd, runc",
        "Replaces": "containerd, runc",
    },
    "docker-ce": {
        "Depends": "containerd.io (>= 1.6.4), docker-ce-cli, iptables",
        "Recommends": "ca-certificates, procps, xz-utils",
        "Conflicts": "docker (<< 1.5~), docker.io",
        "Replaces": "docker-engine",
    },
    "docker-ce-cli": {
        "Recommends": "docker-buildx-plugin, docker-compose-plugin",
        "Conflicts": "docker (<< 1.5~), docker.io, docker-cli",
        "Replaces": "docker-ce (<< 5:0)",
        "Breaks": "docker-ce (<< 5:0)",
    },
    "docker-buildx-plugin": {"Enhances": "docker-ce-cli"},
    "docker-compose-plugin": {"Enhances": "docker-ce-cli"},
}
# The order matters: the socket first, or the service fails for want of it.
SERVICES = {"containerd.io": "containerd.service", "docker-ce": "docker.socket docker.service"}
POSTINST = """\
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
{group}for unit in {units}; do
    deb-systemd-helper unmask "$unit" >/dev/null || true
    deb-systemd-helper enable "$unit" >/dev/null || true
done
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
    if [ -n "$2" ]; then action=restart; else action=start; fi
    deb-systemd-invoke $action {units} >/dev/null || true
fi
"""
PRERM = """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ] && [ "$1" = remove ]; then
    deb-systemd-invoke stop {units} >/dev/null || true
fi
"""
POSTRM = """\
#!/bin/sh
set -e
[ ! -d /run/systemd/system ] || systemctl --system daemon-reload >/dev/null || true
if [ "$1" = purge ]; then
    deb-systemd-helper purge {units} >/dev/null || true
fi
"""
GROUP = "getent group docker >/dev/null || groupadd --system docker\n"


def repository(packages: list[Package], codename: str, number: str, site: Path) -> None:
    architecture = _output("dpkg", "--print-architecture")
    dist = site / "dists" / codename
    pool = dist / "pool" / "stable" / architecture
    index = dist / "stable" / f"binary-{architecture}"
    for folder in (pool, index):
        folder.mkdir(parents=True)
    for package in packages:
        _build(package, f"~debian.{number}~{codename}", architecture, pool)
    listing = _output("apt-ftparchive", "packages", str(pool.relative_to(site)), cwd=site)
    (index / "Packages").write_text(listing + "\n\n")
    subprocess.run(["gzip", "-kn", index / "Packages"], check=True)
    fields = {
        "Origin": "Docker",
        "Label": "Docker CE",
        "Suite": codename,
        "Codename": codename,
        "Architectures": architecture,
        "Components": "stable",
    }
    options = [f"--option=APT::FTPArchive::Release::{key}={value}" for key, value in fields.items()]
    release = dist / "Release"
    release.write_text(_output("apt-ftparchive", *options, "release", str(dist)) + "\n")
    for kind, name in (("--clear-sign", "InRelease"), ("--detach-sign", "Release.gpg")):
        subprocess.run(["gpg", "--batch", "--armor", kind, "--output", dist / name, release], check=True)


def _output(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=cwd).stdout.strip()


def _build(package: Package, suffix: str, architecture: str, pool: Path) -> None:
    version = f"{package.version}-1{suffix}"
    relations = dict(RELATIONS[package.name])
    depends = [relations.pop("Depends", ""), *package.libraries]
    lines = {
        "Package": package.name,
        "Version": EPOCHS.get(package.name, "") + version,
        "Architecture": architecture,
        "Maintainer": "llmops.stack contributors <world@llmops.invalid>",
        "Installed-Size": str(sum(path.stat().st_size for path in package.root.rglob("*") if path.is_file()) // 1024),
        "Depends": ", ".join(dict.fromkeys(filter(None, depends))),
        **relations,
        "Section": "admin",
        "Priority": "optional",
        "Description": f"{package.summary}\n Debian's own build, repackaged for tests.",
    }
    control = package.root / "DEBIAN"
    control.mkdir()
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in lines.items() if value))
    configuration = sorted(
        f"/{path.relative_to(package.root)}" for path in package.root.glob("etc/**/*") if path.is_file()
    )
    if configuration:
        (control / "conffiles").write_text("\n".join(configuration) + "\n")
    if package.name in SERVICES:
        _scripts(control, SERVICES[package.name], GROUP if package.name == "docker-ce" else "")
    # A fast compressor: these packages are read once or twice, over a bridge on the same machine.
    command = ["dpkg-deb", "--root-owner-group", "-Zzstd", "-z1", "--build", package.root]
    subprocess.run([*command, pool / f"{package.name}_{version}_{architecture}.deb"], stdout=2, check=True)
    subprocess.run(["rm", "-r", control], check=True)


def _scripts(control: Path, units: str, group: str) -> None:
    for name, text in (("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)):
        script = control / name
        script.write_text(text.format(units=units, group=group))
        script.chmod(0o755)
