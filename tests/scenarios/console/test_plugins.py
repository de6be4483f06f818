"""Plugins that cannot be had, or are listed and do not run: a sentence with the next step, and nothing is lost."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from shlex import quote

import pytest
from node import (
    DAEMON,
    HOME,
    MODEL,
    OLLAMA,
    PLUGIN,
    Owner,
    Step,
    ask_all,
    green,
    on_node,
    refused,
    says,
    served,
    switch,
)

PACKAGES = "/root/packages"
Tell = Callable[[str, str], None]
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


@pytest.fixture
def told(owner: Owner, nothing_is_lost: None) -> Iterator[Callable[[str, str], None]]:
    """Tells a stand-in to fail. Afterwards it does what it should, and the next run is green."""
    taken_back: list[tuple[str, str]] = []

    def tell(service: str, setting: str) -> None:
        switch(service, setting)
        taken_back.append((service, setting.partition("=")[0] + "="))

    yield tell
    for service, setting in taken_back:
        switch(service, setting)
    assert not green(owner, "dify_plugin", plugin=PLUGIN).changed


@pytest.mark.parametrize("trouble", ["drop=true", "status=503"])
def test_marketplace_in_trouble(owner: Owner, told: Tell, trouble: str) -> None:
    """It is asked for the checksum of a version that is not the newest."""
    told("marketplace", trouble)
    refused(owner, "dify_plugin", "The marketplace http://upstream/marketplace", "marketplace_url", **OTHER)


def test_marketplace_that_dify_cannot_reach(owner: Owner, told: Tell) -> None:
    """With the checksum it is Dify's own api that asks, and nobody before it."""
    told("marketplace", "drop=true")
    refused(owner, "dify_plugin", "marketplace", "MARKETPLACE_API_URL", plugin=identifier("0.1.0"))


def test_package_that_is_not_what_was_signed(owner: Owner, told: Tell) -> None:
    # A package that the daemon has from an earlier test is not asked for again.
    on_node(f"rm -f {HOME}/volumes/plugin_daemon/plugin_packages/{PLUGIN}:0.1.0@*")
    told("marketplace", "package=altered")
    refused(owner, "dify_plugin", "signature", **OTHER)


def test_bad_signature(owner: Owner) -> None:
    unsigned = package("0.3.1_unsigned")
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


def test_dependencies_that_take_too_long(owner: Owner, told: Tell) -> None:
    """The run ends in time and says so; the installation goes on in the daemon."""
    told("index", "wait=4")
    late = ("is still .* after . s", "goes on in the plugin daemon", "longer deadline")
    refused(owner, "dify_plugin", *late, deadline=3, **package("0.3.4_dependency"))


@pytest.mark.parametrize("fault", ["dead", "crashloop"])
def test_listed_and_its_process_is_dead(owner: Owner, told: Tell, fault: str) -> None:
    told("plugin_daemon", f"plugin={fault}")
    model = {"model": MODEL, "credentials": {"base_url": OLLAMA, "context_size": "1024"}, "overwrite": True}
    steps = [
        Step("dify_plugin", {"plugin": PLUGIN, "process_timeout": 3}),
        Step("dify_model", {"deadline": 3, **model}),
    ]
    plugin, asked = ask_all(owner, steps)
    assert plugin.failed and asked.failed, (plugin, asked)
    says(plugin.message, "is listed, but", "read the log of")
    says(asked.message, MODEL, "plugin's process", "log")


def test_killed_process_comes_back(owner: Owner, told: Tell) -> None:
    """The daemon starts another one; a run in between waits for it."""
    ours = 'case "$(readlink $one/cwd)" in */langgenius/ollama-*) kill -9 ${one#/proc/};; esac'
    on_node(f"docker exec {DAEMON} sh -c {quote(f'for one in /proc/[0-9]*; do {ours}; done')}")
    assert not green(owner, "dify_plugin", plugin=PLUGIN).changed
