# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What the hosts of an inventory will ask a mirror for, out of their variables and what a run has seen of them. Pure.

A need is one thing by the name under which hosts ask for it. Which images a release of Dify has stands in its own
archive, and which wheels a plugin needs in its package: M(llmops.stack.mirror_store) finds them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.llmops.stack.plugins.module_utils._dify_bootstrap import default_plugins
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_given import WishError, given_of
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_plan import in_charge
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import parse_version as parse_dify_version
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import since
from ansible_collections.llmops.stack.plugins.module_utils._mirror_asked import digest
from ansible_collections.llmops.stack.plugins.module_utils._mirror_ollama_needed import ollama_needs
from ansible_collections.llmops.stack.plugins.module_utils._mirror_packages_needed import package_needs
from ansible_collections.llmops.stack.plugins.module_utils._mirror_release import elsewhere
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import BadName, parse
from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import ARCHITECTURES
from ansible_collections.llmops.stack.plugins.module_utils._traceloop_target import LGTM, PHOENIX, which

__all__ = ["needs"]

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# The keys of .env on which it depends what Compose starts, and with it which images there have to be.
DECIDING_KEYS = ("COMPOSE_PROFILES", "DB_HOST", "DB_TYPE", "VECTOR_STORE")


class _Needs:
    def __init__(
        self, hostvars: Mapping[str, Mapping[str, Any]], hosts: Mapping[str, Iterable[str]], settings: Mapping[str, Any]
    ) -> None:
        self.hostvars = hostvars
        self.hosts = {kind: list(names) for kind, names in hosts.items()}
        self.settings = settings
        self.defaults: Mapping[str, Any] = settings.get("defaults") or {}
        self.found: dict[tuple[str, ...], dict[str, Any]] = {}
        self.notes: list[str] = []

    # -- what is said about a host

    def value(self, host: str, name: str) -> Any:
        """The variable; a default that is itself a template says that nobody has set it."""
        given = self.hostvars[host].get(name)
        if given is not None:
            return given
        default = self.defaults.get(name)
        return None if isinstance(default, str) and "{{" in default else default

    def given(self, host: str, name: str) -> bool:
        """Whether the host gets this from a place of its own, so that no mirror is asked."""
        return bool(self.hostvars[host].get(name))

    def facts(self, host: str) -> Mapping[str, Any]:
        return (self.hostvars[host].get("ansible_facts") or {}).get("llmops_stack") or {}

    def architectures(self, host: str) -> list[str]:
        seen = str((self.facts(host).get("os") or {}).get("arch") or "")
        return [ARCHITECTURES[seen]] if seen in ARCHITECTURES else list(self.settings.get("architectures") or ["amd64"])

    # -- needs

    def add(self, kind: str, name: str, host: str | list[str], architectures: Iterable[str] = (), **more: Any) -> None:
        key = (kind, name, *(str(more[one]) for one in ("path", "env", "images") if one in more))
        need = self.found.setdefault(key, {"kind": kind, "name": name, "hosts": [], "architectures": [], **more})
        need["hosts"] = sorted({*need["hosts"], *([host] if isinstance(host, str) else host)} - {""})
        need["architectures"] = sorted({*need["architectures"], *architectures})

    def collect(self) -> None:
        for host in self.hosts.get("dify", ()):
            self._dify(host)
            if self._is_version(host, str(self.value(host, "dify_version"))):
                self._plugins(host)
            self._traces(host)
            self._compose(host)
        for host in self.hosts.get("ollama", ()):
            self._models(host)
            if self.value(host, "ollama_install") == "container":
                self._compose(host)
        self._further()
        for need in [*ollama_needs(self), *package_needs(self)]:
            self.add(**need)

    def _dify(self, host: str) -> None:
        # What runs is needed, too, until the upgrade is done: to put the host back, or to make it anew.
        running = in_charge(self.facts(host).get("dify") or {})
        for version in dict.fromkeys([str(self.value(host, "dify_version")), running]):
            if version:
                self._release(host, version)

    def _release(self, host: str, version: str) -> None:
        if not self._is_version(host, version):
            return
        given = (self.hostvars[host].get("dify_env") or {}) if host else {}
        own = (self.hostvars[host].get("dify_compose_override") or {}) if host else {}
        path = f"github/langgenius/dify/archive/refs/tags/{version}.tar.gz"
        current = bool(host) and version == str(self.value(host, "dify_version"))
        checksum = digest(self.value(host, "dify_archive_checksum")) if current else ""
        self.add("archive", f"Dify {version}", host, path=path, sha256=checksum, check="targz")
        if host and self.given(host, "docker_registry_mirrors"):
            return
        services = own.get("services") or {}
        self.add(
            "release",
            f"images of Dify {version}",
            host,
            self.architectures(host) if host else self.settings.get("architectures") or ["amd64"],
            path=path,
            version=version,
            env={key: str(given[key]) for key in DECIDING_KEYS if given.get(key) is not None},
            images={
                str(name): str(service["image"])
                for name, service in services.items()
                if isinstance(service, Mapping) and service.get("image")
            },
        )

    def _is_version(self, host: str, version: str) -> bool:
        try:
            parse_dify_version(version)
        except ValueError as exc:
            self.notes.append(f"{host or 'mirror_dify_versions'}: {str(exc).rstrip('.')}.")
            return False
        return True

    def _plugins(self, host: str) -> None:
        if not since(str(self.value(host, "dify_version")), "plugin_daemon") or self.given(
            host, "dify_marketplace_url"
        ):
            return
        elements = self.hostvars[host].get("dify_plugins")
        if elements is None:
            elements = default_plugins(self.hostvars[host].get("dify_models") or self._default_models())
        for element in elements:
            self._plugin(host, element)

    def _default_models(self) -> list[dict[str, Any]]:
        """What role dify will be told where nobody sets dify_models: every model of every Ollama host."""
        names = [one for host in self.hosts.get("ollama", ()) for one in self.value(host, "ollama_models") or []]
        return [{"model": str(name)} for name in names]

    def _plugin(self, host: str, element: Any) -> None:
        where = host or "mirror_plugins"
        try:
            given = given_of(element)
        except WishError as exc:
            self.notes.append(f"{where}: dify_plugins: {exc}.")
            return
        if given.state == "absent":
            return
        if given.source != "marketplace" or given.wanted is None:
            called = given.wanted.text if given.wanted else given.package or given.repo
            self.notes.append(
                f"{where}: {called} does not come from the marketplace ({given.source}), so the mirror holds neither "
                "it nor the Python packages that it needs. Name the plugin in mirror_plugins to have those of the "
                "marketplace's version."
            )
            return
        wheels = not (host and (self.given(host, "dify_plugin_index") or self.given(host, "dify_plugin_wheels")))
        self.add(
            "plugin",
            given.wanted.text,
            host,
            self.architectures(host) if host else self.settings.get("architectures") or ["amd64"],
            plugin=given.wanted.plugin,
            version=given.wanted.version,
            checksum=given.wanted.checksum,
            python=list(self.settings.get("plugin_python") or []) if wheels else [],
        )

    def _traces(self, host: str) -> None:
        given = {name: self.value(host, f"traceloop_{name}") or "" for name in ("api_key", "base_url")}
        backend = which({"backend": str(self.value(host, "traceloop_backend") or "auto"), **given})
        if backend == "none" or self.given(host, "docker_registry_mirrors"):
            return
        wanted = ["collector"] if boolean(self.value(host, "traceloop_collector")) else []
        if backend in (PHOENIX, LGTM) and not given["base_url"]:
            wanted.append(backend)
        for name in wanted:
            self.add("image", str(self.value(host, f"traceloop_{name}_image")), host, self.architectures(host))

    def _compose(self, host: str) -> None:
        if self.given(host, "compose_download_url") or self.value(host, "compose_source") in ("none", "package"):
            return
        version = str(self.value(host, "compose_version"))
        folder = f"github/docker/compose/releases/download/v{version}"
        for arch in self.architectures(host):
            file = f"docker-compose-linux-{MACHINES[arch]}"
            self.add(
                "archive",
                f"Docker Compose {version} for {arch}",
                host,
                path=f"{folder}/{file}",
                sha256=digest(self.value(host, "compose_checksum")),
                sums=f"{folder}/{file}.sha256",
            )

    def _models(self, host: str) -> None:
        if self.given(host, "ollama_bundle") or self.given(host, "ollama_registry"):
            return
        for name in self.value(host, "ollama_models") or []:
            self._model(host, str(name))

    def _model(self, host: str, text: str) -> None:
        try:
            name = parse(text)
        except BadName as exc:
            self.notes.append(f"{host or 'mirror_models'}: {exc}")
            return
        if not name.is_cloud:
            self.add("model", name.short, host)

    def _further(self) -> None:
        """What no host asks for yet: an upgrade in preparation, a model to come."""
        architectures = list(self.settings.get("architectures") or ["amd64"])
        # As hosts will ask for it that are there, and as one would that is still to come.
        for version in map(str, self.settings.get("dify_versions") or []):
            for host in ("", *self.hosts.get("dify", ())) if self._is_version("", version) else ():
                self._release(host, version)
        for name in self.settings.get("models") or []:
            self._model("", str(name))
        for element in self.settings.get("plugins") or []:
            self._plugin("", element)
        for image in self.settings.get("images") or []:
            self.add("image", str(image), "", architectures)


def needs(
    hostvars: Mapping[str, Mapping[str, Any]], hosts: Mapping[str, Iterable[str]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that these hosts will ask for, each once.

    Args:
        hostvars: the variables of every host; with C(llmops_stack) among its facts where this run has looked at it.
        hosts: names by what they are to be, C(dify), C(ollama), C(gateway) and C(mirror).
        settings: C(defaults) of the roles by name; for hosts that nobody has looked at C(architectures) (amd64) and
            C(systems) (such as C(debian/trixie)); C(plugin_python), the versions of Python that plugins run on; and
            what is wanted besides, C(dify_versions), C(ollama_versions), C(models), C(plugins), C(images).

    Returns:
        C(needs), sorted by kind and name, C(notes) in sentences, and C(unseen), the hosts without such facts.
    """
    collected = _Needs(hostvars, hosts, settings)
    collected.collect()
    ordered = [collected.found[key] for key in sorted(collected.found)]
    collected.notes += elsewhere(one["name"] for one in ordered if one["kind"] == "image")
    unseen = sorted({host for names in collected.hosts.values() for host in names if not collected.facts(host)})
    return {"needs": ordered, "notes": list(dict.fromkeys(collected.notes)), "unseen": unseen}
