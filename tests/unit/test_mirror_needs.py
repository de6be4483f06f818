# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory needs of a mirror, and which images each release of Dify says that it has."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.filter.mirror import mirror_needs
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import Release
from ansible_collections.llmops.stack.plugins.module_utils._download import ReleaseError
from ansible_collections.llmops.stack.plugins.module_utils._mirror_release import (
    elsewhere,
    full_name,
    read_release,
    release_images,
    stored_name,
)

NEAR = {"base": "debian", "codename": "trixie", "major": "13", "arch": "amd64", "machine": "x86_64"}


def seen(**more: Any) -> dict[str, Any]:
    """The variables of a host that a run has looked at."""
    return {"ansible_facts": {"llmops_stack": {"os": NEAR, "gpus": [], "gpu": {}, "dify": {}, **more}}}


def names(found: dict[str, Any], kind: str) -> list[str]:
    return [one["name"] for one in found["needs"] if one["kind"] == kind]


def only(found: dict[str, Any], kind: str) -> dict[str, Any]:
    matching = [one for one in found["needs"] if one["kind"] == kind]
    assert len(matching) == 1, matching
    return matching[0]


class TestHosts:
    def test_a_stack_on_one_host(self) -> None:
        hostvars = {"one": {**seen(), "dify_version": "1.12.1", "ollama_version": "0.17.4", "ollama_models": ["tiny"]}}
        found = mirror_needs(hostvars, {"dify": ["one"], "ollama": ["one"]}, {"plugin_python": ["3.12"]})
        assert found["notes"] == found["unseen"] == []
        assert names(found, "archive") == [
            "Dify 1.12.1",
            "Docker Compose 2.40.3 for amd64",
            "Ollama 0.17.4, ollama-linux-amd64.tar.zst",
        ]
        assert names(found, "release") == ["images of Dify 1.12.1"]
        assert names(found, "model") == ["tiny:latest"]
        plugin = only(found, "plugin")
        assert (plugin["plugin"], plugin["version"], plugin["python"]) == ("langgenius/ollama", "", ["3.12"])
        repository = only(found, "repository")
        assert (repository["path"], repository["suite"]) == ("docker-ce/linux/debian", "trixie")
        assert "python3-yaml" in only(found, "packages")["packages"]
        assert all(one["hosts"] == ["one"] for one in found["needs"])

    def test_what_many_want_is_there_once_for_all_of_them(self) -> None:
        hostvars = {f"n{number}": {**seen(), "ollama_models": ["a", "library/a:latest"]} for number in range(40)}
        found = mirror_needs(hostvars, {"ollama": list(hostvars)})
        assert only(found, "model")["hosts"] == sorted(hostvars)
        assert only(found, "archive")["architectures"] == []
        assert only(found, "packages")["hosts"] == sorted(hostvars)

    def test_an_upgrade_needs_both_releases_until_it_is_done(self) -> None:
        """What runs and what comes; and one in preparation, which no host asks for yet."""
        running = seen(dify={"current": "1.11.4", "containers": [{"name": "x"}]})
        found = mirror_needs(
            {"one": {**running, "dify_version": "1.12.1"}}, {"dify": ["one"]}, {"dify_versions": ["1.16.0"]}
        )
        assert [one["version"] for one in found["needs"] if one["kind"] == "release"] == ["1.11.4", "1.12.1", "1.16.0"]

    def test_an_upgrade_in_preparation_is_that_of_the_hosts(self) -> None:
        """With their vector store, their GPUs and their way to install; sums are those of the inventory's version."""
        amd = seen(gpus=[{"vendor": "amd", "driver": "amdgpu"}])
        pinned = {"ollama_checksums": {"ollama-linux-amd64.tar.zst": "a" * 64}, "ollama_version": "0.32.14"}
        hostvars = {
            "one": {**seen(), "dify_env": {"VECTOR_STORE": "qdrant"}},
            "gpu1": {**amd, **pinned},
            "gpu2": {**amd, "ollama_install": "container"},
        }
        hosts = {"dify": ["one"], "ollama": ["gpu1", "gpu2"]}
        found = mirror_needs(hostvars, hosts, {"dify_versions": ["1.16.0"], "ollama_versions": ["0.33.0"]})
        to_come = [one["env"] for one in found["needs"] if one["kind"] == "release" and one["version"] == "1.16.0"]
        assert to_come == [{"VECTOR_STORE": "qdrant"}, {}]
        assert "Ollama 0.33.0, ollama-linux-amd64-rocm.tar.zst" in names(found, "archive")
        assert "ollama/ollama:0.33.0-rocm" in names(found, "image")
        sums = {
            one["name"]: one["sha256"] for one in found["needs"] if one["name"].endswith("ollama-linux-amd64.tar.zst")
        }
        assert sums == {
            "Ollama 0.32.14, ollama-linux-amd64.tar.zst": "a" * 64,
            "Ollama 0.33.0, ollama-linux-amd64.tar.zst": "",
        }
        assert found["notes"] == []

    def test_an_upgrade_that_cannot_be_meant_is_told_once(self) -> None:
        hosts = {"dify": ["one"], "ollama": ["one"]}
        found = mirror_needs({"one": seen()}, hosts, {"dify_versions": ["v1"], "ollama_versions": ["v2"]})
        assert [note.split(":")[0] for note in found["notes"]] == ["mirror_dify_versions", "mirror_ollama_versions"]

    def test_a_release_of_ollama_for_no_host(self) -> None:
        (note,) = mirror_needs({}, {}, {"ollama_versions": ["0.33.0"]})["notes"]
        assert "0.33.0" in note and "neither its archives for AMD GPUs and Jetsons nor an image" in note

    def test_of_the_env_only_what_decides_about_images_is_passed_on(self) -> None:
        given = {"VECTOR_STORE": "qdrant", "DB_PASSWORD": "secret", "COMPOSE_PROFILES": None}
        found = mirror_needs({"one": {**seen(), "dify_env": given}}, {"dify": ["one"]})
        assert only(found, "release")["env"] == {"VECTOR_STORE": "qdrant"}
        assert "secret" not in str(found)

    def test_two_vector_stores_are_two_needs(self) -> None:
        hostvars = {
            "one": {**seen(), "dify_env": {"VECTOR_STORE": "qdrant"}},
            "two": {**seen(), "dify_env": {"VECTOR_STORE": "pgvector"}},
        }
        found = mirror_needs(hostvars, {"dify": ["one", "two"]})
        assert [one["env"]["VECTOR_STORE"] for one in found["needs"] if one["kind"] == "release"] == [
            "pgvector",
            "qdrant",
        ]

    def test_gpus_decide_about_archives_and_toolkits(self) -> None:
        amd = {"vendor": "amd", "driver": "amdgpu"}
        nvidia = {"vendor": "nvidia", "driver": "nvidia"}
        hostvars = {
            "amd": {**seen(gpus=[amd], gpu={"kfd": True})},
            "nvidia": {**seen(gpus=[nvidia]), "ollama_install": "container"},
        }
        found = mirror_needs(hostvars, {"ollama": ["amd", "nvidia"]})
        assert "Ollama 0.32.15, ollama-linux-amd64-rocm.tar.zst" in names(found, "archive")
        assert names(found, "image") == ["ollama/ollama:0.32.15"]
        assert [one["path"] for one in found["needs"] if one["kind"] == "repository"] == [
            "docker-ce/linux/debian",
            "libnvidia-container/stable/deb/amd64",
        ]

    def test_traces_bring_their_images(self) -> None:
        hostvars = {
            "own": {**seen(), "traceloop_backend": "phoenix"},
            "hosted": {**seen(), "traceloop_api_key": "k"},
            "none": seen(),
        }
        found = mirror_needs(hostvars, {"dify": ["own", "hosted", "none"]})
        assert {one["name"]: one["hosts"] for one in found["needs"] if one["kind"] == "image"} == {
            "arizephoenix/phoenix:version-20.26.1": ["own"],
            "otel/opentelemetry-collector-contrib:0.155.0": ["hosted", "own"],
        }
        assert "'k'" not in str(found)

    def test_red_hat_has_repositories_of_its_own(self) -> None:
        rocky = {"base": "centos", "codename": "", "major": "9", "arch": "arm64", "machine": "aarch64"}
        found = mirror_needs({"one": {"ansible_facts": {"llmops_stack": {"os": rocky}}}}, {"dify": ["one"]})
        assert only(found, "repository")["path"] == "docker-ce/linux/centos/9/aarch64/stable"
        assert names(found, "packages") == []
        assert "no packages of the distribution for one, such as python3-requests" in found["notes"][0]
        assert "Docker Compose 2.40.3 for arm64" in names(found, "archive")

    @pytest.mark.parametrize(
        ("variables", "kind"),
        [
            ({"ollama_archive_url": "/srv/ollama"}, "archive"),
            ({"ollama_bundle": "/srv/models"}, "model"),
            ({"ollama_registry": "models.example.com"}, "model"),
        ],
    )
    def test_what_a_host_gets_elsewhere_is_no_need(self, variables: dict[str, Any], kind: str) -> None:
        hosts = {"ollama": ["one"]}
        assert names(mirror_needs({"one": {**seen(), "ollama_models": ["tiny"]}}, hosts), kind)
        assert not names(mirror_needs({"one": {**seen(), "ollama_models": ["tiny"], **variables}}, hosts), kind)

    def test_hosts_that_nobody_has_seen(self) -> None:
        hosts = {"dify": ["one"]}
        found = mirror_needs({"one": {}}, hosts)
        assert not names(found, "repository")
        assert found["unseen"] == ["one"]
        assert "one will install is not known" in found["notes"][0]
        named = mirror_needs({"one": {}}, hosts, {"systems": ["debian/bookworm"], "architectures": ["amd64", "arm64"]})
        assert named["notes"] == []
        assert names(named, "repository") == [
            "Docker's packages for debian bookworm on amd64",
            "Docker's packages for debian bookworm on arm64",
            "NVIDIA's container toolkit for amd64",
            "NVIDIA's container toolkit for arm64",
        ]
        assert only(named, "release")["architectures"] == ["amd64", "arm64"]

    @pytest.mark.parametrize(
        ("variables", "told"),
        [
            ({}, True),
            ({"ollama_install": "container"}, True),
            ({"ollama_gpu": "nvidia"}, False),
            ({"ollama_gpu": "nvidia", "ollama_install": "container"}, False),
            ({"ollama_overlays": ["rocm"]}, False),
            ({"ollama_archive_url": "/srv/ollama"}, False),
        ],
    )
    def test_gpus_that_nobody_has_seen(self, variables: dict[str, Any], told: bool) -> None:
        hosts = {"ollama": ["gpu1"]}
        found = mirror_needs({"gpu1": variables}, hosts, {"systems": ["debian/trixie"]})
        assert ["Which GPUs gpu1 will use is not known" in note for note in found["notes"]] == [True] * told
        docker = variables.get("ollama_install") == "container"
        assert ("NVIDIA's container toolkit for amd64" in names(found, "repository")) is docker

    def test_a_jetson_that_nobody_has_seen(self) -> None:
        settings = {"systems": ["ubuntu/jammy"], "architectures": ["arm64"]}
        found = mirror_needs({"gpu1": {"ollama_gpu": "nvidia"}}, {"ollama": ["gpu1"]}, settings)
        assert "ollama_overlays (such as [jetpack6])" in found["notes"][0]

    def test_what_cannot_be_meant_is_said(self) -> None:
        hostvars = {"one": {**seen(), "dify_version": "v1", "ollama_version": "latest", "ollama_models": ["a b"]}}
        notes = " ".join(mirror_needs(hostvars, {"dify": ["one"], "ollama": ["one"]})["notes"])
        assert "'v1' is not" in notes
        assert "'latest' is not a version of Ollama" in notes
        assert "'a b' is no name of a model" in notes

    def test_plugins_from_elsewhere_are_told(self) -> None:
        plugins = ["langgenius/openai:0.0.9", {"plugin": "me/mine", "package": "/srv/mine.difypkg"}]
        found = mirror_needs({"one": {**seen(), "dify_plugins": plugins}}, {"dify": ["one"]})
        assert names(found, "plugin") == ["langgenius/openai 0.0.9"]
        assert "me/mine does not come from the marketplace" in found["notes"][0]

    def test_the_oldest_dify_has_no_plugins(self) -> None:
        hostvars = {"one": {**seen(), "dify_version": "0.15.3", "dify_plugins": ["langgenius/ollama"]}}
        assert names(mirror_needs(hostvars, {"dify": ["one"]}), "plugin") == []


class TestImages:
    def test_every_release_says_what_it_starts(self, dify_tag: str, release: Release, pack: Callable[..., Any]) -> None:
        """Out of its own archive, as Compose would start it with nothing said by the operator."""
        packed = read_release(str(pack(dify_tag)))
        assert packed.compose == release.compose
        found = release_images(packed, {}, {})
        assert f"langgenius/dify-api:{dify_tag}" in found
        assert "postgres:15-alpine" in found
        assert [one for one in found if one.startswith("semitechnologies/weaviate:")]
        assert not [one for one in found if "qdrant" in one or "mysql" in one or "certbot" in one]
        assert len(found) == len(set(found)) > 7

    def test_the_profiles_decide(self, release: Release) -> None:
        found = release_images(release, {"VECTOR_STORE": "qdrant"}, {})
        assert [one for one in found if one.startswith("langgenius/qdrant:")]
        assert not [one for one in found if "weaviate" in one]

    def test_a_database_elsewhere_needs_no_image(self, releases: dict[str, Release]) -> None:
        found = release_images(releases["1.12.1"], {"DB_HOST": "db.example.com"}, {})
        assert "postgres:15-alpine" not in found

    def test_an_image_of_the_operators_own(self, releases: dict[str, Release]) -> None:
        found = release_images(releases["1.12.1"], {}, {"redis": "valkey/valkey:8", "extra": "me/extra:1"})
        assert {"valkey/valkey:8", "me/extra:1"} <= set(found)
        assert "redis:6-alpine" not in found

    def test_what_is_no_release_is_refused(self, pack: Callable[..., pathlib.Path], tmp_path: pathlib.Path) -> None:
        broken = pack("1.12.1", leave_out=("docker/docker-compose.yaml",))
        with pytest.raises(ReleaseError, match="no docker/docker-compose"):
            read_release(str(broken))
        cut = tmp_path / "cut.tar.gz"
        cut.write_bytes(pack("1.12.1").read_bytes()[:2000])
        with pytest.raises(ReleaseError, match="damaged"):
            read_release(str(cut))

    @pytest.mark.parametrize(
        ("image", "full", "stored"),
        [
            ("nginx", "docker.io/library/nginx:latest", "library/nginx:latest"),
            ("redis:6-alpine", "docker.io/library/redis:6-alpine", "library/redis:6-alpine"),
            ("langgenius/dify-api:1.12.1", "docker.io/langgenius/dify-api:1.12.1", "langgenius/dify-api:1.12.1"),
            ("ghcr.io/chroma-core/chroma:0.5.20", "ghcr.io/chroma-core/chroma:0.5.20", "chroma-core/chroma:0.5.20"),
            ("reg.example.com:5000/a", "reg.example.com:5000/a:latest", "a:latest"),
            ("a/b@sha256:00", "docker.io/a/b@sha256:00", "a/b@sha256:00"),
        ],
    )
    def test_names(self, image: str, full: str, stored: str) -> None:
        assert (full_name(image), stored_name(image)) == (full, stored)

    def test_images_that_no_mirror_is_asked_for_are_told(self) -> None:
        assert elsewhere(["nginx", "docker.io/a/b:1", "a/b"]) == []
        assert "dify_registry" in elsewhere(["quay.io/coreos/etcd:v3.5.5"])[0]
