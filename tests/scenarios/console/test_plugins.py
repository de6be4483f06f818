"""Plugins that cannot be had, or are listed and do not run: a sentence with the next step, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from node import DAEMON, MODEL, OLLAMA, PLUGIN, UPSTREAM, Owner, eventually, green, on_node, one, refused, switch

PACKAGES = "/root/packages"
OTHER = {"plugin": PLUGIN, "plugin_version": "0.1.0"}
pytestmark = pytest.mark.usefixtures("nothing_is_lost")


def package(name: str) -> dict[str, str]:
    """A package of the world, brought to the node as an operator would bring it."""
    path = f"{PACKAGES}/{name}"
    fetch = f'import urllib.request as u; u.urlretrieve("{UPSTREAM}/plugins/{name}", "{path}")'
    on_node(f"mkdir -p {PACKAGES}; test -f {path} || python3 -c '{fetch}'")
    return {"source": "package", "package": path}


@pytest.fixture(scope="module", autouse=True)
def packages_go() -> Iterator[None]:
    yield
    on_node(f"rm -rf {PACKAGES}")


@pytest.fixture
def daemon() -> Iterator[None]:
    """Whatever it is told in a test, it does what it should afterwards."""
    yield
    switch("plugin_daemon", "plugin=", "install=", "start=")


def test_marketplace_out_of_reach(owner: Owner) -> None:
    """Of the host, which asks for the checksum of an older version."""
    refused(
        owner, "dify_plugin", "marketplace", "cannot be asked", "marketplace_url", marketplace_url="http://upstream:9",
        **OTHER,
    )  # fmt: skip
    assert one(owner, "dify_plugin", check=True, **OTHER).changed


def test_bad_signature(owner: Owner) -> None:
    unsigned = package("unsigned.difypkg")
    refused(owner, "dify_plugin", "bad signature", "take a signed one", "FORCE_VERIFYING_SIGNATURE", **unsigned)


def test_package_too_large(owner: Owner) -> None:
    large = package("too-large.difypkg")
    refused(owner, "dify_plugin", "too large|exceed", "PLUGIN_MAX_PACKAGE_SIZE", "NGINX_CLIENT_MAX_BODY_SIZE", **large)


def test_dependency_that_does_not_exist(owner: Owner) -> None:
    lacking = package("no-such-dependency.difypkg")
    refused(owner, "dify_plugin", "was not found in the package registry", "point PIP_MIRROR_URL", **lacking)
    assert list(owner.plugins()) == [PLUGIN]


def test_plugin_that_crashes_at_its_start(owner: Owner) -> None:
    crashing = package("crashes.difypkg")
    refused(owner, "dify_plugin", "installation of .* failed", "log of plugin_daemon|try another one", **crashing)


@pytest.mark.usefixtures("daemon")
def test_dependencies_that_take_too_long(owner: Owner) -> None:
    """The run ends in time and says so; the installation goes on, and the next run finds it done or does it."""
    switch("plugin_daemon", "install=slow:12")
    refused(
        owner,
        "dify_plugin",
        "still .* after . s",
        "goes on in the plugin daemon",
        "longer deadline",
        deadline=3,
        **OTHER,
    )
    switch("plugin_daemon", "install=")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("fault", ["dead", "crashloop"])
def test_listed_and_its_process_is_dead(owner: Owner, fault: str) -> None:
    switch("plugin_daemon", f"plugin={fault}")
    try:
        refused(owner, "dify_plugin", "is listed, but", "read the log of", plugin=PLUGIN, process_timeout=3)
        model = {"model": MODEL, "credentials": {"base_url": OLLAMA, "context_size": "1024"}, "overwrite": True}
        refused(owner, "dify_model", MODEL, "plugin's process", "log", deadline=3, **model)
    finally:
        switch("plugin_daemon", "plugin=")
    green(owner, "dify_plugin", plugin=PLUGIN)


def test_killed_process_comes_back(owner: Owner) -> None:
    """The daemon starts another one; a run in between waits for it."""
    on_node(f"docker exec {DAEMON} pkill -KILL -f 'python.* -m main'")
    assert not green(owner, "dify_plugin", plugin=PLUGIN).changed
    eventually(f"docker exec {DAEMON} pgrep -f -- '-m main'")
