# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What world.py decides by itself, without a container."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from pathlib import Path

import _archives
import _build
import _host
import _inventory
import _nodes
import _switch
import images
import pytest
import world
from _images import Image
from _settings import IMAGES, WorldError, tree, tree_hash


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One small release: a compose file that mounts a script we have, one we have not, and a file that is data."""
    docker = tmp_path / "releases" / "1.2.3" / "docker"
    (docker / "nginx").mkdir(parents=True)
    (docker / "nginx" / "nginx.conf.template").write_text("worker_processes 1;\n")
    mounts = (
        "./nginx/nginx.conf.template:/etc/t",
        "./nginx/docker-entrypoint.sh:/e",
        "./pgvector/docker-entrypoint.sh:/e",
    )
    (docker / "docker-compose.yaml").write_text("services:\n" + "".join(f"      - {mount}\n" for mount in mounts))
    monkeypatch.setattr(_archives, "RELEASES", tmp_path / "releases")
    return tmp_path / "releases"


def members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {member.name: member for member in opened.getmembers()}


def test_an_archive_is_laid_out_like_githubs(releases: Path) -> None:
    found = members(_archives.pack("1.2.3"))
    assert set(found) == {
        "dify-1.2.3",
        "dify-1.2.3/docker",
        "dify-1.2.3/docker/docker-compose.yaml",
        "dify-1.2.3/docker/nginx",
        "dify-1.2.3/docker/nginx/docker-entrypoint.sh",
        "dify-1.2.3/docker/nginx/nginx.conf.template",
        "dify-1.2.3/docker/pgvector",
        "dify-1.2.3/docker/pgvector/docker-entrypoint.sh",
    }
    assert found["dify-1.2.3/docker/nginx/docker-entrypoint.sh"].mode & 0o111
    assert not found["dify-1.2.3/docker/docker-compose.yaml"].mode & 0o111


def test_an_archive_is_the_same_bytes_every_time(releases: Path) -> None:
    first = _archives.pack("1.2.3")
    (releases / "1.2.3" / "docker" / "docker-compose.yaml").touch()
    assert _archives.pack("1.2.3") == first


def test_a_script_that_the_release_ships_is_kept(releases: Path) -> None:
    own = releases / "1.2.3" / "docker" / "nginx" / "docker-entrypoint.sh"
    own.write_text("#!/bin/sh\necho theirs\n")
    with tarfile.open(fileobj=io.BytesIO(_archives.pack("1.2.3"))) as archive:
        packed = archive.extractfile("dify-1.2.3/docker/nginx/docker-entrypoint.sh")
        assert packed is not None
        assert packed.read() == own.read_bytes()


def test_missing_release_data_says_how_to_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archives, "RELEASES", tmp_path)
    with pytest.raises(WorldError, match="DIFY_RELEASES_DIR"):
        _archives.tags()


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """world.py on a machine without release data; whatever needs an engine or the network only notes that it ran."""
    done: list[str] = []
    monkeypatch.setattr(images, "table", functools.partial(images.table, releases=tmp_path))
    monkeypatch.setattr(_archives, "RELEASES", tmp_path)
    monkeypatch.setattr(world._releases, "ensure", lambda tags: done.append("fetch"))
    monkeypatch.setattr(world.Builder, "ensure", lambda self, name: done.append(name))
    monkeypatch.setattr(world._repos, "ensure", lambda builder: done.append("repositories"))
    monkeypatch.setattr(world._repos, "compose_release", lambda builder: done.append("compose"))
    monkeypatch.setattr(world._upstream, "start", lambda builder: done.append("start"))
    monkeypatch.setattr(world._upstream, "push", lambda table, builder: done.append(f"push {len(table)}"))
    monkeypatch.setattr(_nodes, "ensure", lambda nodes, builder: done.extend(node.name for node in nodes))
    monkeypatch.setattr(_inventory, "write", lambda: done.append("inventory"))
    return done


def test_a_bare_world_needs_no_release_data(steps: list[str]) -> None:
    world.up(world.arguments().parse_args(["up", "--bare", "--node", "node1=trixie"]))
    made = {"upstream", "node-trixie", "repositories", "compose"}
    assert (set(steps[:4]), steps[4:]) == (made, ["start", "push 0", "node1", "inventory"])


def test_a_world_with_dify_asks_for_release_data_before_it_builds(steps: list[str]) -> None:
    with pytest.raises(WorldError, match=r"No release data .* for 1\.12\.1"):
        world.up(world.arguments().parse_args(["up", "--dify", "1.12.1"]))
    assert steps == ["fetch"]


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("node1=trixie", _nodes.Node("node1", "trixie")),
        ("rh-9=redhat:8080", _nodes.Node("rh-9", "redhat", 8080)),
        ("demo=trixie:8080,6006:6006,9091:9090", _nodes.Node("demo", "trixie", 8080, ((6006, 6006), (9091, 9090)))),
    ],
)
def test_a_node_is_read(text: str, node: _nodes.Node) -> None:
    assert _nodes.Node.parse(text) == node


@pytest.mark.parametrize(
    "text",
    [
        *("node1", "n=trixie", "node1=sid", "node1=trixie:http", "Node1=trixie", "no de=trixie"),
        *("node1=trixie:80,81", "node1=trixie:80,81:", "node1=trixie,81:81", "node1=trixie:80:81"),
    ],
)
def test_a_wrong_node_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(WorldError, match="NAME=SYSTEM"):
        _nodes.Node.parse(text)


@pytest.mark.parametrize(
    ("ports", "what"),
    [
        ("8080,8080:6006", "8080 is not a port of 127.0.0.1, or is named twice"),
        ("8080,6006:80", "80 is not a port of the node"),
        ("8080,66000:6006", "66000 is not a port of 127.0.0.1"),
        ("8080,6006:0", "0 is not a port of the node"),
    ],
)
def test_a_port_that_cannot_be_published_is_refused(ports: str, what: str) -> None:
    with pytest.raises(WorldError, match=what):
        _nodes.Node.parse(f"node1=trixie:{ports}")


def test_every_system_has_a_context() -> None:
    for image in _nodes.SYSTEMS.values():
        assert (IMAGES / image / "rootfs.json").is_file() or (IMAGES / image / "Dockerfile").is_file()


def test_the_inventory_names_containers_and_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = pytest.importorskip("yaml")
    monkeypatch.setattr(
        _nodes, "existing", lambda: [_nodes.Node("node1", "trixie", 8080), _nodes.Node("node2", "redhat")]
    )
    monkeypatch.setattr(_inventory._repos, "fingerprint", lambda: "AB" * 20)
    inventory = yaml.safe_load(_inventory.text())
    assert inventory["all"]["vars"]["stack_mirror"] == "http://upstream"
    assert inventory["all"]["vars"]["docker_repo_key_fingerprint"] == "AB" * 20
    groups = inventory["all"]["children"]
    assert {name: host["ansible_host"] for name, host in groups["ollama"]["hosts"].items()} == {
        "node1": "llmops-node1",
        "node2": "llmops-node2",
    }
    assert groups["dify"]["hosts"] == {"node1": {"dify_url": "http://127.0.0.1:8080"}}


def test_an_inventory_without_nodes_is_still_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = pytest.importorskip("yaml")
    monkeypatch.setattr(_nodes, "existing", list)
    assert yaml.safe_load(_inventory.text())["all"]["children"]["dify"]["hosts"] == {}


def test_an_image_before_its_base_is_refused() -> None:
    with pytest.raises(WorldError, match="child is built on parent"):
        _build.check([Image("child", "x", base="parent"), Image("parent", "x")])
    with pytest.raises(WorldError, match="twice"):
        _build.check([Image("one", "x"), Image("one", "y")])


def test_a_context_has_the_same_bytes_in_every_clone(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o700)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_bytes(b"")
    first, name = _build._pack(tree(tmp_path)), tree_hash(tmp_path)
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "run").touch()
    assert (_build._pack(tree(tmp_path)), tree_hash(tmp_path)) == (first, name)
    (tmp_path / "run").chmod(0o644)
    assert tree_hash(tmp_path) != name


def test_proxies_are_handed_on_in_both_spellings_and_spare_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _host.PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert _host.proxies() == {}
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    found = _host.proxies()
    assert found["http_proxy"] == found["HTTP_PROXY"] == "http://proxy:3128"
    assert "upstream" in found["no_proxy"].split(",")


class Shell:
    """Stands for `docker exec … sh -c`: one file that is read and written."""

    def __init__(self) -> None:
        self.path = self.text = ""

    def __call__(self, *args: str, stdin: bytes | None = None, **_: object) -> str:
        if stdin is None:
            return self.text
        self.path, self.text = args[-1].split("mv ")[1].split()[1], stdin.decode()
        return ""


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell()
    monkeypatch.setattr(_switch, "docker", made)
    monkeypatch.setattr(_switch, "running", lambda _: True)
    return made


def test_switching_adds_changes_and_takes_back(shell: Shell) -> None:
    assert _switch.switch("node1", "api", ["health_status=503", "say=a=b"]) == {"health_status": 503, "say": "a=b"}
    assert shell.path == "/opt/dify/volumes/app/storage/.standin.json"
    assert _switch.switch("node1", "api", ["health_status="]) == {"say": "a=b"}
    assert json.loads(shell.text) == {"say": "a=b"}


@pytest.mark.parametrize(("service", "setting"), [("postgres", "a=b"), ("api", "slow"), ("api", "=1")])
def test_a_wrong_switch_changes_nothing(shell: Shell, service: str, setting: str) -> None:
    with pytest.raises(WorldError):
        _switch.switch("node1", service, [setting])
    assert shell.text == ""
