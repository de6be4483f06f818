"""Plugins that cannot be had, or are listed and do not run: a sentence with the next step, and nothing is lost."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest
from node import DAEMON, MODEL, OLLAMA, PLUGIN, Owner, eventually, green, on_node, one, refused, served, switch

PACKAGES = "/root/packages"
OTHER = {"plugin": PLUGIN, "plugin_version": "0.1.0"}
pytestmark = pytest.mark.usefixtures("nothing_is_lost")


def package(ending: str) -> dict[str, str]:
    """A package of the world, brought to the node as an operator would bring it."""
    name = f"langgenius-ollama_{ending}.difypkg"
    fetch = f'import urllib.request as u; u.urlretrieve("http://upstream/plugins/{name}", "{PACKAGES}/{name}")'
    on_node(f"mkdir -p {PACKAGES}; test -f {PACKAGES}/{name} || python3 -c '{fetch}'")
    return {"source": "package", "package": f"{PACKAGES}/{name}"}


def identifier(version: str) -> str:
    with urllib.request.urlopen(served("plugins/index.json"), timeout=30) as answer:
        return next(str(one["identifier"]) for one in json.load(answer) if one["version"] == version)


@pytest.fixture(scope="module", autouse=True)
def packages_go() -> Iterator[None]:
    yield
    on_node(f"rm -rf {PACKAGES}")


@pytest.fixture(autouse=True)
def everything_behaves(owner: Owner, nothing_is_lost: None) -> Iterator[None]:
    """Whatever is told to fail in a test does what it should afterwards, and the next run is green."""
    yield
    switch("plugin_daemon", "plugin=", "install=")
    switch("marketplace", "drop=", "status=", "package=")
    switch("index", "lacks=", "wait=", "drop=")
    assert not green(owner, "dify_plugin", plugin=PLUGIN).changed


@pytest.mark.parametrize("trouble", ["drop=true", "status=503", "portal=true"])
def test_marketplace_in_trouble(owner: Owner, trouble: str) -> None:
    """It is asked for the checksum of a version that is not the newest."""
    switch("marketplace", trouble)
    refused(owner, "dify_plugin", "The marketplace http://upstream/marketplace", "marketplace_url", **OTHER)
    switch("marketplace", f"{trouble.partition('=')[0]}=")
    assert one(owner, "dify_plugin", check=True, **OTHER).changed


def test_marketplace_that_dify_cannot_reach(owner: Owner) -> None:
    """With the checksum it is Dify's own api that asks, and nobody before it."""
    switch("marketplace", "drop=true")
    refused(owner, "dify_plugin", "marketplace", "MARKETPLACE_API_URL", plugin=identifier("0.1.0"))


def test_package_that_is_not_what_was_signed(owner: Owner) -> None:
    switch("marketplace", "package=altered")
    refused(owner, "dify_plugin", "signature", **OTHER)


def test_bad_signature(owner: Owner) -> None:
    for unsigned in (package("0.3.1_unsigned"), package("0.3.2_operator")):
        refused(owner, "dify_plugin", "bad signature", "take a signed one", "FORCE_VERIFYING_SIGNATURE", **unsigned)


def test_package_too_large(owner: Owner) -> None:
    large = package("0.3.3_large")
    refused(owner, "dify_plugin", "too large|exceed", "PLUGIN_MAX_PACKAGE_SIZE", "NGINX_CLIENT_MAX_BODY_SIZE", **large)


def test_dependency_that_does_not_exist(owner: Owner) -> None:
    lacking = package("0.3.4_dependency")
    refused(owner, "dify_plugin", "was not found in the package registry", "point PIP_MIRROR_URL", **lacking)


def test_plugin_that_ends_at_its_start(owner: Owner) -> None:
    crashing = package("0.3.5_crashes")
    refused(owner, "dify_plugin", "installation of .* failed", "log of plugin_daemon|try another one", **crashing)


def test_dependencies_that_take_too_long(owner: Owner) -> None:
    """The run ends in time and says so; the installation goes on in the daemon."""
    switch("index", "wait=4")
    lacking = package("0.3.4_dependency")
    refused(
        owner, "dify_plugin", "is still .* after . s", "goes on in the plugin daemon", "longer deadline", deadline=3,
        **lacking,
    )  # fmt: skip


@pytest.mark.parametrize("fault", ["dead", "crashloop"])
def test_listed_and_its_process_is_dead(owner: Owner, fault: str) -> None:
    switch("plugin_daemon", f"plugin={fault}")
    refused(owner, "dify_plugin", "is listed, but", "read the log of", plugin=PLUGIN, process_timeout=3)
    model = {"model": MODEL, "credentials": {"base_url": OLLAMA, "context_size": "1024"}, "overwrite": True}
    refused(owner, "dify_model", MODEL, "plugin's process", "log", deadline=3, **model)


def test_killed_process_comes_back(owner: Owner) -> None:
    """The daemon starts another one; a run in between waits for it."""
    on_node(f"docker exec {DAEMON} pkill -KILL -f -- '-m main'")
    assert not green(owner, "dify_plugin", plugin=PLUGIN).changed
    eventually(f"docker exec {DAEMON} pgrep -f -- '-m main'")
