# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of an upgrade's steps, written down a second time: what must come before what, and what each step finds.

Nothing here is taken from the rules, so that a step which moves there is found here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Set
from typing import Any, NamedTuple

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_plan import plan
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_rules import STEPS
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import HEADS, parse_version

# Earlier, later, and what happens otherwise.
PAIRS = [
    ("pull", "maintenance", "an image that cannot be had costs an outage"),
    ("pull", "handover", "an image that cannot be had leaves a half-replaced Dify"),
    ("backup", "fetch_plugins", "the backup has plugins that the old release never had"),
    ("backup", "maintenance", "its minutes are an outage"),
    ("backup", "handover", "rollback.yml has nothing to go back to"),
    ("fetch_plugins", "maintenance", "the minutes that plugins' environments take are an outage"),
    ("prepare_vectors", "maintenance", "the minutes that copying vectors takes are an outage"),
    ("prepare_storage", "maintenance", "going through all files is an outage"),
    ("maintenance", "stop", "people see a broken site instead of a page"),
    ("stop", "copy_databases", "what is written meanwhile is lost on the way back, and a database in use has no copy"),
    ("stop", "keep_vectors", "what is written meanwhile is in the wrong Weaviate"),
    ("stop", "storage_owner", "files that are stored afterwards belong to root"),
    ("copy_databases", "data_services", "the copy is of what a new server has begun to change"),
    ("copy_databases", "start_daemon", "the new daemon moves its tables, and there is no copy of how they were"),
    ("copy_databases", "migrate", "there is no way back from a migration that failed"),
    ("copy_databases", "plugin_names", "the way back finds renamed providers"),
    ("keep_vectors", "data_services", "the new Weaviate starts on the old one's files and loses every object"),
    ("data_services", "start_daemon", "the daemon has no database"),
    ("data_services", "migrate", "the migration has no database"),
    ("data_services", "load_vectors", "nobody answers"),
    ("keep_vectors", "load_vectors", "there is nothing to be seen"),
    ("start_daemon", "install_plugins", "nobody answers whether a plugin is there"),
    ("fetch_plugins", "install_plugins", "what was not fetched cannot be there"),
    ("migrate", "install_plugins", "the release's command reads tables that are not there yet"),
    ("migrate", "plugin_names", "the release's command reads tables that are not there yet"),
    ("migrate", "legacy_model_types", "the release's command reads tables that are not there yet"),
    ("migrate", "plugin_auto_upgrade", "its new table is not there yet"),
    ("legacy_model_types", "start", "the new release writes second rows under the new names"),
    ("plugin_auto_upgrade", "start", "the new release upgrades plugins that were to stay"),
    ("plugin_names", "start", "the new release reads providers that it does not know"),
    ("sandbox_config", "start", "each code node fails"),
    ("load_vectors", "start", "searches find nothing"),
    ("vector_properties", "start", "searches fail with 'no such prop'"),
    ("storage_owner", "start_api", "the api cannot write what root owns"),
    ("migrate", "start_api", "the new api finds an old schema, and migrates it three times at once"),
    ("start_api", "legacy_model_types", "the start of the api waits for what it does not need"),
    ("start_api", "plugin_auto_upgrade", "the start of the api waits for what it does not need"),
    ("start", "prove", "there is nothing to be asked"),
    ("handover", "prove", "there is nothing to be asked"),
    ("prove", "open", "what people write on a release that is not good is lost"),
    ("prove", "forget_copies", "the way back is gone before it is known that nobody needs it"),
    ("prove", "prune", "the way back is gone before it is known that nobody needs it"),
    ("open", "forget_copies", "the doors stay closed while databases are dropped"),
    ("open", "prune", "the doors stay closed while images are removed"),
]


class Does(NamedTuple):
    needs: Set[str] = frozenset()
    gives: Set[str] = frozenset()
    takes: Set[str] = frozenset()


# What is true of a host before a step, and after it. Everything that a step relies on must be true when its turn comes.
MODEL: dict[str, Does] = {
    "pull": Does(gives={"images"}),
    "backup": Does({"old serves", "data untouched"}, {"backup"}),
    "fetch_plugins": Does({"old serves", "images"}, {"packages"}),
    "prepare_vectors": Does({"old serves", "images"}, {"vectors beside"}),
    "prepare_storage": Does({"old serves"}, {"most files given"}),
    "maintenance": Does({"old serves", "images", "backup"}, {"closed"}, {"old serves"}),
    "stop": Does({"closed"}, {"nobody writes"}),
    "copy_databases": Does({"nobody writes", "data untouched"}, {"copies"}),
    "keep_vectors": Does({"nobody writes", "vectors beside"}, {"vectors moved"}),
    "storage_owner": Does({"nobody writes", "most files given"}, {"files given"}),
    "sandbox_config": Does({"backup"}, {"sandbox settings"}),
    "data_services": Does({"nobody writes", "copies", "images"}, {"stores"}),
    "start_daemon": Does({"stores", "copies", "nobody writes"}, {"daemon"}),
    "migrate": Does({"stores", "copies", "nobody writes"}, {"schema"}, {"data untouched"}),
    "load_vectors": Does({"stores", "vectors moved"}, {"vectors seen"}),
    "vector_properties": Does({"stores"}, {"properties"}),
    "install_plugins": Does({"daemon", "packages", "schema"}, {"plugins"}),
    "plugin_names": Does({"schema"}, {"plugin names"}),
    "legacy_model_types": Does({"schema", "images", "backup"}, {"model types"}),
    "plugin_auto_upgrade": Does({"schema", "images", "backup"}, {"strategies"}),
    "start_api": Does({"closed", "nobody writes", "schema", "stores"}, {"api begun"}),
    "start": Does({"closed", "api begun"}, {"new runs"}),
    "handover": Does({"old serves", "images", "backup", "schema"}, {"new runs"}, {"old serves"}),
    "prove": Does({"new runs"}, {"proved"}),
    "open": Does({"proved", "closed"}, {"open"}, {"closed"}),
    "forget_copies": Does({"proved", "copies", "open"}),
    "prune": Does({"proved"}),
}
# What a release needs before it runs, when it is the first one on the way that does.
FIRST_NEEDED = {
    "plugins": "1.0.0",
    "plugin names": "1.0.0",
    "vectors seen": "1.9.2",
    "files given": "1.10.1",
    "sandbox settings": "1.13.3",
    "model types": "1.15.0",
    "strategies": "1.15.0",
}


def pairs() -> Iterator[tuple[str, str, list[str]]]:
    """Every way between two known releases, on a host that has all that an upgrade could have to do with."""
    for source, target in itertools.combinations(HEADS, 2):
        info: dict[str, Any] = {
            "head": HEADS[source],
            "database": {"type": "postgresql", "superuser": True},
            "legacy_model_types": 3,
            "old_upgrade_strategies": 1,
        }
        made = plan(source, target, info)
        assert not made["refusals"], (source, target)
        yield source, target, [str(step["id"]) for step in made["steps"]]


WAYS = list(pairs())


@pytest.mark.parametrize(("earlier", "later", "otherwise"), PAIRS, ids=[f"{one[0]}-{one[1]}" for one in PAIRS])
def test_what_comes_before_what(earlier: str, later: str, otherwise: str) -> None:
    both = [(source, target, steps) for source, target, steps in WAYS if {earlier, later} <= set(steps)]
    assert both, "no upgrade has both, so this line says nothing"
    for source, target, steps in both:
        assert steps.index(earlier) < steps.index(later), f"{source} -> {target}: {otherwise}"


def test_each_step_finds_what_it_needs() -> None:
    for source, target, steps in WAYS:
        state = {"old serves", "data untouched"} | ({"schema"} if HEADS[source] == HEADS[target] else set())
        for step in steps:
            does, where = MODEL[step], f"{source} -> {target}: {step}"
            assert does.needs <= state, f"{where} lacks {sorted(does.needs - state)}"
            if step in ("start", "handover"):
                lacking = wanted(source, target) - state
                assert not lacking, f"{where}: the new release lacks {sorted(lacking)}"
            state = (state | does.gives) - does.takes
        assert {"new runs", "proved"} <= state and "closed" not in state, (source, target)


def wanted(source: str, target: str) -> set[str]:
    start, end = parse_version(source)[:3], parse_version(target)[:3]
    return {
        name
        for name, first in FIRST_NEEDED.items()
        if start < parse_version(first)[:3] <= end or (name == "model types" and end >= parse_version(first)[:3])
    }


def test_every_step_is_looked_at() -> None:
    assert set(MODEL) == {step.id for step in STEPS}
    assert {step for _source, _target, steps in WAYS for step in steps} == set(MODEL)
