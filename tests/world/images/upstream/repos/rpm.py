# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dnf repository: the same files as RPMs, signed, laid out as on Docker's own site."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

from engine import Package

RELEASE = "9"
EPOCHS = {"docker-ce": 3, "docker-ce-cli": 1}
TAGS = {
    "containerd.io": ["Provides: containerd, runc", "Conflicts: containerd, runc", "Obsoletes: containerd, runc"],
    "docker-ce": [
        "Requires: containerd.io >= 1.6.4, docker-ce-cli, container-selinux, iptables, systemd, tar, xz",
        "Conflicts: docker, docker-io, docker-engine, podman-docker",
    ],
    "docker-ce-cli": [
        "Recommends: docker-buildx-plugin, docker-compose-plugin",
        "Conflicts: docker, docker-io, podman-docker",
    ],
    "docker-buildx-plugin": ["Enhances: docker-ce-cli"],
    "docker-compose-plugin": ["Enhances: docker-ce-cli"],
}
# As Docker's RPMs do: the group is made, the service is neither enabled nor started.
SCRIPTS = {
    "containerd.io": "%post\nsystemctl --system daemon-reload >/dev/null 2>&1 || :\n",
    "docker-ce": "%pre\ngetent group docker >/dev/null || groupadd --system docker\n"
    "%post\nsystemctl --system daemon-reload >/dev/null 2>&1 || :\n"
    "%preun\n[ $1 -ne 0 ] || systemctl --no-reload disable --now docker.service docker.socket >/dev/null 2>&1 || :\n",
}
SPEC = """\
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%global _build_id_links none
%global _binary_payload w1.gzdio
Name: {name}
Epoch: {epoch}
Version: {version}
Release: 1.el{release}
Summary: {summary}
License: Apache-2.0
AutoReqProv: no
{tags}

%description
Debian's own build, repackaged for tests.

%install
cp -a {root}/. %{{buildroot}}/

%files
{files}

{scripts}
"""


def repository(packages: list[Package], work: Path, site: Path) -> None:
    target = site / RELEASE / platform.machine() / "stable"
    (target / "Packages").mkdir(parents=True)
    for package in packages:
        _build(package, work)
    # Debian's rpm looks for gpg2, a name that Debian's gpg no longer has.
    sign = ["rpmsign", "--define", "_gpg_name world@llmops.invalid", "--define", "__gpg /usr/bin/gpg", "--addsign"]
    for file in sorted(work.glob("RPMS/*/*.rpm")):
        subprocess.run([*sign, file], stdout=2, check=True)
        file.rename(target / "Packages" / file.name)
    subprocess.run(["createrepo_c", "--quiet", "--general-compress-type=gz", target], stdout=2, check=True)


def _build(package: Package, work: Path) -> None:
    files = sorted(path for path in package.root.rglob("*") if not path.is_dir())
    names = [f"/{path.relative_to(package.root)}" for path in files]
    text = SPEC.format(
        name=package.name,
        epoch=EPOCHS.get(package.name, 0),
        version=package.version,
        release=RELEASE,
        summary=package.summary,
        tags="\n".join(TAGS[package.name]),
        root=package.root,
        files="\n".join(f"%config(noreplace) {name}" if name.startswith("/etc/") else name for name in names),
        scripts=SCRIPTS.get(package.name, ""),
    )
    work.mkdir(parents=True, exist_ok=True)
    spec = work / f"{package.name}.spec"
    spec.write_text(text)
    subprocess.run(["rpmbuild", "--quiet", "--define", f"_topdir {work}", "-bb", spec], stdout=2, check=True)
