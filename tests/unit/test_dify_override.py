# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is laid over the compose file of each release."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_env as env
from ansible_collections.llmops.stack.plugins.module_utils import _dify_override as override

WISHES: dict[str, Any] = {"log_max_size": "50m", "log_max_file": 3, "registry": "registry.example.com:5000/hub"}


def lay_over(release: env.Release, overrides: dict[str, str] | None = None, **wishes: Any) -> dict[str, Any]:
    rendered = env.render(release, overrides or {}, {}, {})
    found = override.render_override(
        release.compose, {**wishes, "env": rendered.env, "profiles": rendered.profiles, "overrides": overrides or {}}
    )
    return found["services"]


class TestEveryRelease:
    def test_compose_merges_it(self, dify_tag: str, composed: Any) -> None:
        services = composed(dify_tag).services
        for name, service in services.items():
            assert service["logging"]["options"] == {"max-file": "3", "max-size": "50m"}, name
            assert service["image"].startswith("registry.example.com:5000/hub/"), name
            if name != "nginx":
                for port in service.get("ports", []):
                    assert port["host_ip"] == "127.0.0.1", f"{name} is published to the world"
        callers = {name for name, service in services.items() if service.get("extra_hosts")}
        assert callers == {"api", "worker", "plugin_daemon", "agent_backend"} & set(services)
        assert services["redis"]["image"].endswith("/hub/library/redis:6-alpine")
        assert services["nginx"]["labels"][override.FILES_LABEL]
        assert override.FILES_LABEL not in services["api"].get("labels", {})
        if "plugin_daemon" in services:
            ports = {port["target"]: port["published"] for port in services["plugin_daemon"]["ports"]}
            assert ports == {5002: "5002", 5003: "5003"}

    def test_whoever_needs_the_database_waits_for_it(self, dify_tag: str, composed: Any) -> None:
        services = composed(dify_tag).services
        database = next(name for name in ("db_postgres", "db") if name in services)
        assert services[database]["healthcheck"]["test"][:4] == ["CMD", "pg_isready", "-h", database]
        for name in {"api", "worker", "plugin_daemon"} & set(services):
            assert services[name]["depends_on"][database]["condition"] == "service_healthy", name

    def test_only_active_services_and_no_tags(self, release: env.Release) -> None:
        services = lay_over(release, **WISHES)
        rendered = env.render(release, {}, {}, {})
        assert list(services) == override.active_services(release.compose, rendered.profiles)
        assert "!" not in json.dumps(services), "tags need a newer compose than the releases do"

    def test_a_changed_file_marks_the_services_that_mount_it(self, release: env.Release) -> None:
        files = {"nginx/nginx.conf.template": "1", "nginx/conf.d/default.conf.template": "2", "README": "3"}
        files["ssrf_proxy/squid.conf.template"] = "4"

        def labels(changed: dict[str, str]) -> dict[str, str]:
            services = lay_over(release, files={**files, **changed})
            return {name: one["labels"][override.FILES_LABEL] for name, one in services.items() if "labels" in one}

        before = labels({})
        assert set(before) == {"nginx", "ssrf_proxy"}
        assert labels({"README": "x"}) == before
        mounts = {"nginx/conf.d/default.conf.template": "nginx", "ssrf_proxy/squid.conf.template": "ssrf_proxy"}
        for name, service in mounts.items():
            after = labels({name: "changed"})
            assert {one for one in before if before[one] != after[one]} == {service}

    def test_files_that_must_be_there(self, release: env.Release) -> None:
        services = ["nginx", "ssrf_proxy"]
        needed = override.missing_files(release.compose, services, [])
        assert "nginx/docker-entrypoint.sh" in needed["nginx"]
        assert needed["ssrf_proxy"] == ["ssrf_proxy/squid.conf.template", "ssrf_proxy/docker-entrypoint.sh"]
        have = [name for names in needed.values() for name in names if "conf.d" not in name]
        have.append("nginx/conf.d/default.conf.template")
        assert override.missing_files(release.compose, services, have) == {}


def test_keys_of_a_service_that_does_not_read_env(releases: dict[str, env.Release]) -> None:
    known = {"envs/core-services/local-sandbox.env": ["SHELLCTL_ENABLE_PATH_ISOLATION"]}
    wanted = {"SHELLCTL_ENABLE_PATH_ISOLATION": "false", "LOG_LEVEL": "DEBUG"}
    services = lay_over(releases["1.16.0"], wanted, env_files=known)
    expected = {"SHELLCTL_ENABLE_PATH_ISOLATION": "${SHELLCTL_ENABLE_PATH_ISOLATION}"}
    assert services["local_sandbox"]["environment"] == expected
    assert "environment" not in lay_over(releases["1.16.0"], {}, env_files=known).get("local_sandbox", {})


def test_the_operators_word_is_the_last(releases: dict[str, env.Release]) -> None:
    own = {
        "services": {
            "api": {"extra_hosts": ["llm.example.com:10.0.0.9"], "logging": {"driver": "journald"}},
            "extra": {"image": "busybox"},
        },
        "networks": {"mine": {"external": True}},
    }
    release = releases["1.12.1"]
    rendered = env.render(release, {}, {}, {})
    wishes = {**WISHES, "env": rendered.env, "profiles": rendered.profiles, "compose_override": own}
    found = override.render_override(release.compose, wishes)
    assert found["services"]["api"]["extra_hosts"] == ["host.docker.internal:host-gateway", "llm.example.com:10.0.0.9"]
    assert found["services"]["api"]["logging"]["driver"] == "journald"
    assert found["services"]["extra"] == {"image": "busybox"} and found["networks"] == own["networks"]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("nginx:latest", "r:5000/library/nginx:latest"),
        ("langgenius/dify-api:1.12.1", "r:5000/langgenius/dify-api:1.12.1"),
        ("ghcr.io/chroma-core/chroma:0.5.20", "r:5000/chroma-core/chroma:0.5.20"),
        ("localhost/own:1", "r:5000/own:1"),
        ("old:5000/a/b@sha256:12", "r:5000/a/b@sha256:12"),
    ],
)
def test_image_names_in_another_registry(image: str, expected: str) -> None:
    compose = {"services": {"one": {"image": image}, "built": {"build": "./x"}}}
    assert override.images(compose, ["one", "built"], "r:5000/") == {"one": expected}
    assert override.images(compose, ["one"]) == {"one": image}


def test_profiles() -> None:
    compose = {"services": {"always": {}, "old": {"profiles": ["", "weaviate"]}, "other": {"profiles": ["qdrant"]}}}
    assert override.active_services(compose, ["qdrant"]) == ["always", "other"]
    assert override.active_services(compose, ["weaviate"]) == override.active_services(compose, []) == ["always", "old"]


def test_variables() -> None:
    text = "${A:-redis://:${B:-x}@h} $${NOT} ${C} $D ${E?needed}"
    assert override.variables(text) == {"A", "B", "C", "E"}


def test_bind_sources() -> None:
    volumes = [
        "./nginx/conf.d:/etc/nginx/conf.d:ro",
        {"type": "bind", "source": "./volumes/x", "target": "/x"},
        {"type": "volume", "source": "oradata", "target": "/y"},
        "${MYSQL_HOST_VOLUME:-./volumes/mysql/data}:/var/lib/mysql",
        "named:/z",
    ]
    assert override.bind_sources({"volumes": volumes}) == ["nginx/conf.d", "volumes/x"]
    assert override.data_free_sources({"volumes": volumes}) == ["nginx/conf.d"]
