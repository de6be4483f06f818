# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the control machine knows about the way out (proxies, own certificate authorities, apt) and must hand on."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

from _engine import run
from _settings import WorldError, say

PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
OWN_AUTHORITIES = (Path("/usr/local/share/ca-certificates"), Path("/etc/pki/ca-trust/source/anchors"))
BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
_INSTALLING = threading.Lock()  # apt does not like company
APT_KEYS = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
# Programs that Debian does not call like their packages.
PACKAGES = {"pip3": "python3-pip"}


def proxies() -> dict[str, str]:
    """Proxy variables of this machine in both spellings; the world's own names never go through a proxy."""
    found: dict[str, str] = {}
    for name in PROXY_VARIABLES:
        value = os.environ.get(name) or os.environ.get(name.upper())
        if value:
            found[name] = value
    if not found:
        return {}
    found["no_proxy"] = ",".join(
        filter(None, [found.get("no_proxy", ""), "localhost,127.0.0.1,upstream,172.16.0.0/12"])
    )
    return found | {name.upper(): value for name, value in found.items()}


def authorities() -> list[Path]:
    """Certificates that were added to this machine, as a proxy that inspects TLS needs them."""
    return sorted(path for folder in OWN_AUTHORITIES if folder.is_dir() for path in folder.rglob("*.crt"))


def bundle() -> Path | None:
    named = os.environ.get("SSL_CERT_FILE")
    return next((path for path in ([Path(named)] if named else []) + list(BUNDLES) if path.is_file()), None)


def apt_settings() -> list[str]:
    """This machine's apt settings that decide whether a download works, as lines of an apt.conf."""
    if not shutil.which("apt-config"):
        return []
    lines = []
    for line in run("apt-config", "dump", "--no-empty").splitlines():
        if line.split(" ", 1)[0] in APT_KEYS:
            lines.append(line)
    return lines


def debian_mirror() -> str:
    """The mirror this machine itself uses, so that mmdebstrap need not know one; empty where it is not a Debian."""
    if not shutil.which("apt-get"):
        return ""
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    for line in run("apt-get", "indextargets", "--format", form, check=False).splitlines():
        origin, label, uri = line.split("|", 2)
        if (origin, label) == ("Debian", "Debian"):
            return uri.rstrip("/")
    return ""


def require(*programs: str) -> None:
    """Installs the Debian packages of programs that this machine lacks."""
    with _INSTALLING:
        _require(programs)


def _require(programs: tuple[str, ...]) -> None:
    missing = [PACKAGES.get(name, name) for name in programs if not shutil.which(name)]
    if not missing:
        return
    wanted = " ".join(missing)
    if not shutil.which("apt-get"):
        raise WorldError(f"This machine lacks {wanted}. Install it with your package manager and try again.")
    if os.geteuid():
        raise WorldError(f"This machine lacks {wanted}. Run `sudo apt-get install -y {wanted}` and try again.")
    say(f"installing {wanted} on this machine")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Another stage may be installing, too.
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=600", "install", "-y", "--no-install-recommends", *missing]
    if subprocess.run(install, capture_output=True, check=False, env=quiet).returncode:
        run("apt-get", "update", env=quiet)
        run(*install, env=quiet)


def container_options() -> list[str]:
    """Options of `docker run` that hand the proxies on."""
    return [f"--env={name}={value}" for name, value in proxies().items()]


def build_options() -> list[str]:
    """The same for `docker build`, where these are predefined arguments and leave no trace in the image."""
    return [f"--build-arg={name}={value}" for name, value in proxies().items()]
