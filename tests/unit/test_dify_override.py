# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is laid over the compose file of each release."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import yaml
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

    def test_what_another_role_adds(self, dify_tag: str, composed: Any, load: Any) -> None:
        services = composed(dify_tag).services
        release = load(dify_tag).compose["services"]
        assert set(services) - set(release) == {"otel_collector"}
        for name in {"api", "worker", "worker_beat"} & set(release):
            seen = services[name]
            assert seen["environment"]["PYTHONPATH"] == "/opt/seen", name
            assert seen["environment"]["TRACELOOP_BASE_URL"] == "http://otel_collector:4318", name
            assert seen["environment"]["MODE"], f"{name} lost what it has from the release"
            mounted = {one["target"]: one for one in seen["volumes"]}
            assert mounted["/opt/seen"]["read_only"], name
            assert ("/app/api/storage" in mounted) == (name != "worker_beat"), name
            assert seen["labels"] == {"seen.digest": "1"}
        # The file comes after those of the release; what the release says in `environment` wins over both.
        assert services["api"]["environment"]["LOG_LEVEL"] == ("SEEN" if "env_file" in release["api"] else "INFO")
        collector = services["otel_collector"]
        assert collector["image"] == "registry.example.com:5000/hub/otel/opentelemetry-collector-contrib:0.155.0"
        assert collector["environment"]["LOG_LEVEL"] == "SEEN" and list(collector["networks"]) == ["default"]
        assert [one["source"] for one in collector["volumes"]] == ["otel_queue"]

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


STORES = (
    "weaviate", "qdrant", "milvus", "myscale", "pgvector", "pgvecto-rs", "chroma", "elasticsearch", "elasticsearch-ja",
    "opensearch", "oceanbase", "seekdb", "opengauss", "couchbase", "vastbase", "matrixone", "iris", "oracle",
)  # fmt: skip


class TestPublishedPorts:
    def test_of_every_store_are_local_or_said(self, release: env.Release) -> None:
        for store in STORES:
            rendered = env.render(release, {"VECTOR_STORE": store}, {}, {})
            services = override.active_services(release.compose, rendered.profiles)
            for name, ports in override.open_ports(release.compose, services, rendered.env).items():
                said = [one for one in rendered.warnings if one.startswith(f"{name} listens on all addresses")]
                assert said and all(port in said[0] for port in ports), (store, name)
            assert not [one for one in rendered.warnings if "nginx" in one or "plugin_daemon" in one]

    def test_programs_are_given_the_plain_number(self, release: env.Release) -> None:
        """In .env, and in what containers read of it, is an address; the override takes it away again."""
        for store in STORES:
            wanted = {"VECTOR_STORE": store}
            rendered = env.render(release, wanted, {}, {})
            laid_over = lay_over(release, wanted)
            for name in override.active_services(release.compose, rendered.profiles):
                service = release.compose["services"][name]
                seen = {**override.environment(service), **laid_over.get(name, {}).get("environment", {})}
                for value in seen.values():
                    named = override.variables(value) - {"EXPOSE_NGINX_PORT", "EXPOSE_NGINX_SSL_PORT"}
                    assert not [key for key in named if rendered.env.get(key, "").startswith("127.0.0.1:")], (
                        name,
                        value,
                    )

    @pytest.mark.parametrize("tag", ["1.13.3", "1.16.0"])
    def test_as_compose_sees_them(
        self, releases: dict[str, env.Release], compose: Any, tmp_path: pathlib.Path, tag: str
    ) -> None:
        if tag not in releases:
            pytest.skip(f"no data of {tag}")
        wanted = {"VECTOR_STORE": "elasticsearch"}
        rendered = env.render(releases[tag], wanted, {}, {})
        (tmp_path / ".env").write_text(rendered.text)
        (tmp_path / "docker-compose.yaml").write_text(releases[tag].compose_text)
        laid_over = {"services": lay_over(releases[tag], wanted)}
        (tmp_path / "docker-compose.override.yaml").write_text(yaml.safe_dump(laid_over))
        services = compose.config(tmp_path)["services"]
        for name, port in (("elasticsearch", "9200"), ("kibana", "5601")):
            (published,) = services[name]["ports"]
            assert (published["host_ip"], published["published"]) == ("127.0.0.1", port)
        for name in ("api", "worker"):
            assert services[name]["environment"]["ELASTICSEARCH_PORT"] == "9200"

    def test_the_operators_address_is_the_last_word(self, releases: dict[str, env.Release]) -> None:
        release = next(reversed(releases.values()))
        wide = {"VECTOR_STORE": "elasticsearch", "KIBANA_PORT": "0.0.0.0:5601", "ELASTICSEARCH_PORT": "9201"}
        rendered = env.render(release, wide, {}, {})
        assert rendered.env["KIBANA_PORT"] == "0.0.0.0:5601"
        (warning,) = rendered.warnings
        assert warning.startswith("elasticsearch listens on all addresses of the host, port 9201")

    def test_forms_of_a_port(self) -> None:
        ports = ["80:80", "127.0.0.1:81:81", "127.0.0.1::82", "[::1]:83:83", "84", "${A:-85}:85/udp", "${B}:86"]
        long = [{"target": 87, "published": 87}, {"target": 88, "published": "88", "host_ip": "127.0.0.1"}]
        services = {"one": {"ports": ports + long}, "nginx": {"ports": ["443:443"]}}
        found = override.open_ports({"services": services}, services, {"B": "127.0.0.1:86"})
        assert found == {"one": ["80", "a free one for 84", "85", "87"]}

    def test_a_variable_that_is_a_number_elsewhere_takes_no_address(self) -> None:
        services = {
            "a": {"ports": ["${A:-1}:1"], "environment": {"URL": "http://a:${A:-1}"}},
            "b": {"ports": ["${B:-2}:${B:-2}"]},
            "c": {"ports": ["${C:-3}:3"], "command": "serve --port ${C:-3}"},
            "d": {"ports": ["${D:-4}:4"], "environment": ["PORT=${D:-4}"]},
        }
        assert override.local_ports({"services": services}, services) == {"D": "4"}


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
