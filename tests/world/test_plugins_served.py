# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the world serves to a plugin daemon: packages, the marketplace that lists them, and the index of wheels."""

from __future__ import annotations

import http.client
import importlib.util
import io
import json
import re
import sys
import tarfile
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import _plugins
import _switch
import _wheelprogram
import _wheels
import images
import pytest
from _engine import docker, published_port, running
from _images import WheelProgram
from _plugins import OFFICIAL_KEY, OPERATOR_KEY, PLUGIN
from _settings import IMAGES, LABEL, MACHINE, NETWORK, REPO, UPSTREAM, WorldError, node_container

sys.path.append(str(IMAGES / "standin"))

from standin import daemon_package  # the path to it is set just above

GOOD = ["0.2.0", "0.1.0"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("www") / "plugins"
    folder.mkdir()
    _plugins.write(folder)
    return folder


@pytest.fixture(scope="module")
def listed(shelf: Path) -> dict[str, dict[str, Any]]:
    """What is served, by the part of the name that says what is wrong with it, or by version."""
    found = json.loads((shelf / "index.json").read_text())
    return {one["file"].removesuffix(".difypkg").split("_", 1)[1].split("_")[-1]: one for one in found}


def read(shelf: Path, entry: Mapping[str, Any]) -> daemon_package.Package:
    return daemon_package.read((shelf / entry["file"]).read_bytes())


# Packages


def test_the_daemon_reads_every_package_and_calls_it_what_the_index_does(
    shelf: Path, listed: dict[str, dict[str, Any]]
) -> None:
    assert set(listed) == {*GOOD, "unsigned", "operator", "large", "dependency", "crashes"}
    for entry in listed.values():
        package = read(shelf, entry)
        assert (package.identifier, package.plugin_id) == (entry["identifier"], PLUGIN)
        assert daemon_package.IDENTIFIER.match(package.identifier)


def test_only_what_the_publisher_signed_counts_as_official(shelf: Path, listed: dict[str, dict[str, Any]]) -> None:
    assert OFFICIAL_KEY == daemon_package.OFFICIAL_KEY
    signed = {name for name, entry in listed.items() if read(shelf, entry).signed_by(OFFICIAL_KEY)}
    assert signed == {*GOOD, "large", "dependency", "crashes"}
    assert read(shelf, listed["operator"]).signed_by(OPERATOR_KEY.read_bytes())
    assert read(shelf, listed["unsigned"]).verification is None


def test_what_is_wrong_with_a_package_is_wrong_with_nothing_else(
    shelf: Path, listed: dict[str, dict[str, Any]]
) -> None:
    whole = read(shelf, listed["0.2.0"]).files
    differs = {
        name: {path for path, data in read(shelf, entry).files.items() if whole.get(path) != data} - {"manifest.yaml"}
        for name, entry in listed.items()
    }
    assert differs["dependency"] == {"requirements.txt"}
    assert differs["crashes"] == {"main.py"}
    assert differs["large"] == {"_assets/ballast.bin"}
    assert differs["0.1.0"] == differs["unsigned"] == differs["operator"] == set()
    sizes = {name: (shelf / entry["file"]).stat().st_size for name, entry in listed.items()}
    assert [name for name, size in sizes.items() if size > 52428800] == ["large"]


def test_equal_sources_give_equal_packages(shelf: Path, tmp_path: Path) -> None:
    _plugins.write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in shelf.iterdir()
    }


def test_a_manifest_without_a_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manifest.yaml").write_text("name: ollama\n")
    monkeypatch.setattr(_plugins, "SOURCES", tmp_path)
    with pytest.raises(WorldError, match="needs one line"):
        _plugins.contents(_plugins.Package("0.1.0"))


# The index of wheels


def test_the_lock_has_what_the_plugin_asks_for() -> None:
    asked = re.findall(r"(?m)^([\w.-]+)==(\S+)", _wheels.RECIPES[_wheels.LOCK][0].read_text())
    assert asked
    lines = _wheels.LOCK.read_text().splitlines()
    for name, version in asked:
        assert f"{_wheels.normalized(name)}=={version} \\" in lines
    assert all(_wheels.locked(_wheels.LOCK.read_text()).values())


@pytest.mark.parametrize("line", ["flask", "flask==3.1.3", "flask>=3 --hash=sha256:" + "0" * 64])
def test_a_lock_without_a_digest_is_refused(line: str) -> None:
    with pytest.raises(WorldError, match="--hash"):
        _wheels.locked(f"# about\n{line}\n")


def test_an_index_has_a_page_for_each_package(tmp_path: Path) -> None:
    wheel = tmp_path / "Zope.Event-6.2-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    _wheels.write(tmp_path / "pypi", [wheel])
    assert '<a href="zope-event/">' in (tmp_path / "pypi" / "simple" / "index.html").read_text()
    page = (tmp_path / "pypi" / "simple" / "zope-event" / "index.html").read_text()
    address = re.search(r'href="([^"#]+)#sha256=([0-9a-f]{64})"', page)
    assert address
    found = tmp_path / "pypi" / "simple" / "zope-event" / address[1]
    assert found.read_bytes() == wheel.read_bytes()
    assert address[2] == _wheels._digest(wheel)
    with tarfile.open(tmp_path / "pypi" / "wheels.tar") as archive:
        assert archive.getnames() == [wheel.name]


def test_a_lock_that_is_only_partly_cached_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wheels, "CACHED", tmp_path)
    there = tmp_path / "one-1-py3-none-any.whl"
    there.write_bytes(b"one")
    digest = _wheels._digest(there)
    assert _wheels._found({"one": {digest, "f" * 64}}) == [there]
    assert _wheels._found({"one": {digest}, "two": {"f" * 64}}) == []


def test_wheels_are_fetched_into_a_cache_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wheels, "CACHE", tmp_path / "new")
    monkeypatch.setattr(_wheels, "CACHED", tmp_path / "new" / "wheels")
    monkeypatch.setattr(
        _wheels, "_pip", lambda target, *_, **__: (target / "one-1-py3-none-any.whl").write_bytes(b"one")
    )
    _wheels._fetch(_wheels.LOCK)
    assert [path.name for path in _wheels.CACHED.iterdir()] == ["one-1-py3-none-any.whl"]


def test_the_daemon_has_the_uv_that_the_replays_run() -> None:
    assert f"{images.UV.name}=={images.UV.version}" in (REPO / "requirements.txt").read_text().splitlines()
    assert all(re.fullmatch("[0-9a-f]{64}", images.UV.sha256[machine]) for machine in _wheels.MACHINES)


def test_a_program_is_fetched_by_the_digest_of_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def pip(target: Path, _machine: str, *what: str) -> None:
        asked.append((what, Path(what[-1]).read_text()))
        with zipfile.ZipFile(target / "tool-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tool-1.data/scripts/tool", "a program")

    monkeypatch.setattr(_wheels, "_pip", pip)
    monkeypatch.setattr(_wheelprogram, "CACHE", tmp_path)
    digest = "0" * 64
    program = _wheelprogram.ensure(WheelProgram("tool", "1", {MACHINE: digest}))
    assert program.read_text() == "a program"
    ((what, wanted),) = asked
    assert "--require-hashes" in what
    assert wanted == f"tool==1 --hash=sha256:{digest}\n"


# The marketplace, as nginx meets it


class Market:
    """The program behind nginx, with one node at 127.0.0.1 and any other client at 127.0.0.2."""

    def __init__(self, port: int, switches: Path) -> None:
        self._port, self._switches = port, switches

    def tell(self, service: str, **told: object) -> None:
        (self._switches / f"localhost.{service}.json").write_text(json.dumps(told))

    def ask(
        self, path: str, body: object = None, *, client: str = "127.0.0.1"
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        data = None if body is None else json.dumps(body)
        connection.request("GET" if data is None else "POST", path, data, {"X-Real-IP": client})
        with connection.getresponse() as reply:
            return reply.status, reply.headers, reply.read()

    def data(self, path: str, body: object = None) -> Any:
        status, _, text = self.ask(f"/marketplace/api/v1/{path}", body)
        found = json.loads(text)
        assert (status, found["code"]) == (200, 0)
        return found["data"]


@pytest.fixture
def market(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Market]:
    spec = importlib.util.spec_from_file_location("shelves", IMAGES / "upstream" / "shelves.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WWW", shelf.parent)
    monkeypatch.setattr(module, "SWITCHES", tmp_path)
    monkeypatch.setattr(module, "CONTAINER", "{}")
    server = module.Server(("127.0.0.1", 0), module.Shelves)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield Market(server.server_address[1], tmp_path)
    server.shutdown()
    server.server_close()
    thread.join()


def download(identifier: str) -> str:
    return "/marketplace/api/v1/plugins/download?" + urllib.parse.urlencode({"unique_identifier": identifier})


def test_the_marketplace_lists_good_versions_newest_first(market: Market, listed: dict[str, dict[str, Any]]) -> None:
    versions = market.data(f"plugins/{PLUGIN}/versions?page=1&page_size=100")["versions"]
    assert [one["unique_identifier"] for one in versions] == [listed[version]["identifier"] for version in GOOD]
    assert [one["version"] for one in market.data(f"plugins/{PLUGIN}/versions?page=2&page_size=1")["versions"]] == [
        "0.1.0"
    ]
    market.tell("marketplace", versions="all")
    assert len(market.data(f"plugins/{PLUGIN}/versions")["versions"]) == len(listed)


def test_the_marketplace_names_the_latest_of_what_it_has(market: Market, listed: dict[str, dict[str, Any]]) -> None:
    found = market.data("plugins/batch", {"plugin_ids": [PLUGIN, "langgenius/other"]})["plugins"]
    assert [(one["org"], one["name"], one["latest_package_identifier"]) for one in found] == [
        ("langgenius", "ollama", listed["0.2.0"]["identifier"])
    ]
    assert market.data(f"plugins/{PLUGIN}")["plugin"] == found[0]
    assert market.data("plugins/search/advanced", {"query": "OLLAMA"})["plugins"] == found
    assert (
        market.data("stats/plugins/install_count", {"unique_identifier": found[0]["latest_package_identifier"]}) == {}
    )


def test_a_package_comes_by_its_identifier_good_or_not(market: Market, listed: dict[str, dict[str, Any]]) -> None:
    for name in ("0.1.0", "unsigned"):
        status, headers, _ = market.ask(download(listed[name]["identifier"]))
        assert (status, headers["X-Accel-Redirect"]) == (200, f"/served/plugins/{listed[name]['file']}")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("plugins/langgenius/other", None, 404),
        ("plugins/langgenius/other/versions", None, 404),
        ("plugins/download?unique_identifier=langgenius/ollama:9.9.9@00", None, 404),
        ("anything", {}, 404),
        ("plugins/batch", [], 400),
    ],
)
def test_what_the_marketplace_has_not_is_said(market: Market, path: str, body: object, status: int) -> None:
    found, _, text = market.ask(f"/marketplace/api/v1/{path}", body)
    assert (found, json.loads(text)["code"]) == (status, -1)


def test_a_package_can_be_cut_or_altered(market: Market, shelf: Path, listed: dict[str, dict[str, Any]]) -> None:
    address = download(listed["0.1.0"]["identifier"])
    market.tell("marketplace", package="altered")
    package = daemon_package.read(market.ask(address)[2])
    assert (package.identifier, package.signed_by(OFFICIAL_KEY)) == (listed["0.1.0"]["identifier"], False)
    market.tell("marketplace", package="cut")
    with pytest.raises(daemon_package.PackageError, match="not a valid difypkg"):
        daemon_package.read(market.ask(address)[2])


def test_only_the_node_that_was_told_has_trouble(market: Market) -> None:
    path = "/marketplace/api/v1/plugins/langgenius/ollama"
    market.tell("marketplace", status=503)
    assert (market.ask(path)[0], market.ask(path, client="127.0.0.2")[0]) == (503, 200)
    market.tell("marketplace", drop=True)
    assert market.ask(path)[1]["X-Accel-Redirect"] == "/drop"
    market.tell("marketplace", portal=True)
    assert market.ask(path)[2].startswith(b"<html>")
    assert market.ask("/pypi/simple/")[1]["X-Accel-Redirect"] == "/served/pypi/simple/"


def test_an_index_can_lack_a_package_and_be_slow(market: Market) -> None:
    market.tell("index", lacks="Dify_Plugin", rate=1000)
    assert market.ask("/pypi/simple/dify-plugin/")[0] == 404
    status, headers, _ = market.ask("/pypi/simple/flask/")
    assert (status, headers["X-Accel-Limit-Rate"]) == (200, "1000")


# In the world


@pytest.fixture
def upstream() -> str:
    if not running(UPSTREAM):
        pytest.skip("the world is not up")
    return f"127.0.0.1:{published_port(UPSTREAM, 80)}"


def get(host: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request("GET", path)
    with connection.getresponse() as reply:
        return reply.status, reply.read()


@pytest.mark.world
def test_files_come_whole_through_nginx(upstream: str) -> None:
    versions = json.loads(get(upstream, f"/marketplace/api/v1/plugins/{PLUGIN}/versions")[1])["data"]["versions"]
    newest = versions[0]["unique_identifier"]
    packed = get(upstream, download(newest))[1]
    assert daemon_package.read(packed).identifier == newest
    assert packed == get(upstream, "/plugins/langgenius-ollama_0.2.0.difypkg")[1]
    page = get(upstream, "/pypi/simple/dify-plugin/")[1].decode()
    address = re.search(r'href="../../(files/[^"#]+)', page)
    assert address
    status, wheel = get(upstream, f"/pypi/{address[1]}")
    assert (status, zipfile.ZipFile(io.BytesIO(wheel)).testzip()) == (200, None)
    assert get(upstream, "/served/plugins/index.json")[0] == 404
    assert get(upstream, "/pypi/simple/absent/")[0] == 404


@pytest.mark.world
def test_a_node_meets_what_it_was_switched_to(upstream: str) -> None:
    """Any container of the world's network is a node to the upstream; this one has the name of one."""
    name = "shelves-test"
    container = node_container(name)
    image = docker("inspect", "--format", "{{.Config.Image}}", UPSTREAM).strip()
    docker("rm", "-f", container)  # of a run that was killed
    options = ["--rm", f"--label={LABEL}", f"--name={container}", f"--network={NETWORK}"]
    docker("run", "-d", *options, image, "sleep", "600")
    ask = (
        "import urllib.request as u, urllib.error, http.client\n"
        "key = {'Authorization': 'Bearer x'}\n"
        "for path, data in (('/marketplace/api/v1/plugins/langgenius/ollama', None), ('/pypi/simple/', None),\n"
        "                   ('/otlp/v1/traces', b'')):\n"
        "    try: print(u.urlopen(u.Request('http://upstream' + path, data, key), timeout=10).status)\n"
        "    except urllib.error.HTTPError as error: print(error.code)\n"
        "    except (http.client.RemoteDisconnected, OSError) as error: print(type(error).__name__)\n"
    )

    def met() -> list[str]:
        return docker("exec", container, "python3", "-c", ask).split()

    def received() -> dict[str, int]:
        return dict(json.loads(get(upstream, f"/otlp/received?node={name}")[1])["requests"]["traces"])

    try:
        before = received()  # of another node, which had this address
        assert met() == ["200", "200", "200"]
        _switch.switch(name, "marketplace", ["status=500"])
        _switch.switch(name, "index", ["drop=true"])
        _switch.switch(name, "traceloop", ["key=y"])
        assert met() == ["500", "RemoteDisconnected", "401"]
        _switch.switch(name, "traceloop", ["key=", "drop=true"])
        assert met()[2] == "RemoteDisconnected"
        counted = {status: number - before.get(status, 0) for status, number in received().items()}
        assert {status: number for status, number in counted.items() if number} == {"200": 1, "401": 1, "444": 1}
        assert get(upstream, f"/marketplace/api/v1/plugins/{PLUGIN}")[0] == 200
    finally:
        docker("rm", "-f", container)
        for service in ("marketplace", "index", "traceloop"):
            docker("exec", UPSTREAM, "rm", "-f", f"/srv/switches/{name}.{service}.json")
