"""From the providers that 0.15 had built in to the plugins of 1.x: what goes wrong goes wrong before anything stops."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import node
import pytest
import seed as seeds
from node import HOME, on_node
from state import State, plugins

pytestmark = pytest.mark.long

OLD, NEW, FAR = "0.15.3", "1.0.0", "1.12.1"
OLLAMA = "langgenius/ollama"
STORAGE = f"{HOME}/volumes/plugin_daemon"


def workspaces() -> set[str]:
    return {row[0] for row in node.sql("SELECT id FROM tenants")}


@pytest.fixture
def base_of_cohere(seed: seeds.Seed) -> Iterator[str]:
    """A knowledge base of the first workspace, embedded by a provider that nothing else names."""
    name = f"cohere-{uuid.uuid4().hex[:8]}"
    node.sql(
        "INSERT INTO datasets (tenant_id, name, created_by, indexing_technique, embedding_model_provider) "
        f"SELECT tenant_id, '{name}', account_id, 'high_quality', 'cohere' FROM tenant_account_joins LIMIT 1"
    )
    yield name
    node.sql(f"DELETE FROM datasets WHERE name = '{name}'")


@pytest.fixture
def nothing_installed(seed: seeds.Seed) -> None:
    """No upgrade was tried yet: what one has installed stays for the next one, which then has nothing to do."""
    node.sql("DROP DATABASE IF EXISTS dify_plugin WITH (FORCE)")
    on_node(f"rm -rf {STORAGE}; mkdir -p {STORAGE}")


@pytest.mark.at(OLD)
def test_a_plugin_that_nobody_offers_is_told_before_anything_stops(base_of_cohere: str, untouched: State) -> None:
    """Dify's own command does not see knowledge bases, and installs nothing for them without a word."""
    started = node.containers()
    node.refused(NEW, "langgenius/cohere cannot be had", "missing_plugins")
    assert node.containers() == started


@pytest.mark.at(OLD)
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        pytest.param("install=lies", "does not list the plugin", id="success with nothing installed"),
        pytest.param("install=fail:no route", "installation of langgenius/ollama", id="no package index"),
    ],
)
def test_a_plugin_that_does_not_install_is_known_before_anything_stops(
    nothing_installed: None, untouched: State, setting: str, says: str
) -> None:
    started = node.containers()
    with node.told("plugin_daemon", setting):
        node.refused(NEW, says)
        assert node.containers() == started


@pytest.mark.at(OLD)
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param("lies", "old name", id="says completed, has done nothing"),
        pytest.param("fail", "old name", id="exits with 1"),
        pytest.param("hang", "did not end within", id="never ends"),
    ],
)
def test_names_that_are_not_rewritten_lead_back(untouched: State, fault: str, says: str) -> None:
    with node.told("api", f"migrate-data-for-plugin={fault}"):
        node.fell_back(NEW, "failed at plugin_names", says, log="plugin_names.log")


@pytest.mark.at(OLD)
def test_straight_to_a_much_newer_release(back: State, seed: seeds.Seed) -> None:
    node.upgraded(FAR)
    back.is_kept()
    assert {one.split("@")[0].rpartition(":")[0] for one in plugins()} == {f"{one} {OLLAMA}" for one in workspaces()}
    seeds.grown(seed, FAR)
    again = node.upgrade(FAR)
    assert (again.status, again.changed) == (0, 0), again.output[-6000:]


@pytest.mark.at("1.10.1")
def test_files_of_plugins_are_what_the_daemon_has_installed(back: State, seed: seeds.Seed) -> None:
    """One file is lost, and one is there that nobody has installed: the new daemon would start it."""
    (name,) = {one.split()[1] for one in plugins()}
    stray = f"{STORAGE}/plugin/langgenius/stray:0.0.1@{'a' * 64}"
    on_node(f"cp {STORAGE}/plugin/{name} {stray}; rm {STORAGE}/plugin/{name}")
    node.upgraded("1.11.4")
    assert on_node(f"find {STORAGE}/plugin -type f") == f"{STORAGE}/plugin/{name}"
    assert on_node(f"find {node.evidence()}/plugin-files-without-row -type f").endswith("a" * 64)
    seeds.grown(seed, "1.11.4")
