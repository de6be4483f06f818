# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of an upgrade: every ordered pair of releases, and each rule at its edge."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_plan import (
    half_committing,
    in_charge,
    plan,
    stops,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_upgrade_rules import COMMANDS
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import HEADS, daemon_version, parse_version

UNKNOWN = ["0.14.2", "1.12.9", "1.16.1", "1.17.0", "1.17.1", "1.18.0", "2.0.0"]
TAGS = sorted([*HEADS, *UNKNOWN], key=parse_version)
ALLOWED = {"allow_unknown": True}
EDGES = [
    "0.15.3",
    "1.0.0",
    "1.9.1",
    "1.9.2",
    "1.10.0",
    "1.10.1",
    "1.12.1",
    "1.13.2",
    "1.13.3",
    "1.14.2",
    "1.15.0",
    "1.16.0",
]
# What a step changes in what dify_info sees.
EFFECTS: dict[str, dict[str, Any]] = {
    "legacy_model_types": {"legacy_model_types": 0},
    "plugin_auto_upgrade": {"old_upgrade_strategies": 0},
    "sandbox_config": {"sandbox_config": {"present": True, "python_path": ""}},
}


def installation(tag: str, **changes: Any) -> dict[str, Any]:
    """What dify_info returns of a healthy installation."""
    return {
        "release": tag,
        "head": HEADS.get(tag, ""),
        "database": {"type": "postgresql", "internal": True, "size_mb": 700, "plugin_size_mb": 10, "superuser": True,
                     "createdb": True, "not_owned": [], "invalid_indexes": [], "foreign_sessions": [], "error": ""},
        "lock_ttl_ms": 0,
        "legacy_model_types": 3,
        "colliding_providers": [],
        "old_upgrade_strategies": 1,
        "private_keys": {"checked": 1, "missing": []},
        "storage": {"type": "opendal", "local": True, "size_mb": 20, "uid": 0},
        "vector": {"store": "weaviate", "internal": True, "collections": 1, "objects": 10, "size_mb": 5},
        "sandbox_config": {"present": True, "python_path": "/usr/local/bin/python3"},
        "secret_key": {"set": True, "public": False},
        "free_mb": {"backup": 50000, "database": 50000, "docker": 50000},
        **changes,
    }  # fmt: skip


def ids(made: dict[str, Any]) -> list[str]:
    return [step["id"] for step in made["steps"]]


def planned(source: str, target: str, options: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return plan(source, target, installation(source, **changes), options)


class TestEveryPair:
    @pytest.mark.parametrize("options", [{}, ALLOWED], ids=["known", "allowed"])
    def test_a_plan_or_a_reason(self, options: dict[str, Any]) -> None:
        for source, target in itertools.product(TAGS, TAGS):
            for info in ({}, installation(source, legacy_model_types=0)):
                made = plan(source, target, info, options)
                where = f"{source} -> {target}"
                if source == target:
                    assert made["kind"] == "same" and not made["steps"] and not made["refusals"], where
                    continue
                assert bool(made["steps"]) != bool(made["refusals"]), where
                older = parse_version(target) < parse_version(source)
                unknown = not options and (source not in HEADS or target not in HEADS)
                assert bool(made["refusals"]) == (older or unknown or bool(made["stops"])), where
                if older:
                    assert "rollback.yml" in made["refusals"][0] and f"dify_version to {source}" in made["refusals"][0]
                elif unknown:
                    assert "dify_allow_unknown_version" in made["refusals"][0], where

    def test_no_step_twice(self) -> None:
        for source, target in itertools.product(TAGS, TAGS):
            found = ids(planned(source, target, ALLOWED))
            assert len(found) == len(set(found)), f"{source} -> {target}"

    def test_kind_is_whether_the_schema_moves(self) -> None:
        for source, target in itertools.combinations(HEADS, 2):
            made = planned(source, target)
            same = HEADS[source] == HEADS[target]
            assert made["kind"] == ("same_head" if same else "other_head")
            assert ("migrate" in ids(made)) != same and ("handover" in ids(made)) == same
            assert (
                ("maintenance" in ids(made)) == ("copy_databases" in ids(made)) == ("open" in ids(made)) == (not same)
            )
            assert {"pull", "backup", "prove", "prune"} <= set(ids(made))

    def test_a_command_exists_in_the_release_that_runs_it(self) -> None:
        for source, target in itertools.combinations(HEADS, 2):
            for step in planned(source, target)["steps"]:
                if step["id"] in COMMANDS:
                    assert parse_version(target)[:3] >= parse_version(COMMANDS[step["id"]][0])[:3], (
                        source,
                        target,
                        step,
                    )
                    assert step["command"][0] == "flask"

    def test_every_step_says_why(self) -> None:
        for step in planned("0.15.3", "1.16.0")["steps"]:
            assert step["title"] and step["why"].endswith(".") and step["phase"] in ("before", "outage", "after")

    def test_what_was_done_is_not_due_again_and_nothing_else_changes(self) -> None:
        """A plan made anew after an upgrade that was cut off, on what its steps left."""
        for source, target in itertools.combinations(TAGS, 2):
            info = installation(source)
            before = ids(plan(source, target, info, ALLOWED))
            for step, effect in EFFECTS.items():
                if step in before:
                    after = ids(plan(source, target, {**info, **effect}, ALLOWED))
                    assert after == [one for one in before if one != step], (source, target, step)

    def test_a_long_way_does_what_its_parts_do(self) -> None:
        """What must be done once is done whether the way is taken in one step or in two."""
        once = {
            "fetch_plugins",
            "prepare_vectors",
            "keep_vectors",
            "load_vectors",
            "prepare_storage",
            "storage_owner",
            "install_plugins",
            "plugin_names",
        }
        once |= set(EFFECTS)
        edges = [tag for tag in HEADS if tag in EDGES]
        for source, via, target in itertools.combinations(edges, 3):
            info = installation(source)
            first = ids(plan(source, via, info))
            for step in first:
                info.update(EFFECTS.get(step, {}))
            second = ids(plan(via, target, {**info, "head": HEADS[via]}))
            direct = set(ids(plan(source, target, installation(source)))) & once
            assert direct == (set(first) | set(second)) & once, (source, via, target)
            assert not set(first) & set(second) & once, (source, via, target)


class TestStops:
    def test_stop_by_stop_every_way_comes_to_its_end(self) -> None:
        for source, target in itertools.combinations(TAGS, 2):
            here, runs = source, 0
            while here != target:
                via = [*stops(here, target), target][0]
                made = plan(here, via, installation(here, legacy_model_types=0), ALLOWED)
                assert made["steps"] and not made["refusals"] and parse_version(here) < parse_version(via)
                here, runs = via, runs + 1
            assert runs == 1 + bool(stops(source, target))

    @pytest.mark.parametrize(
        ("source", "target", "via"),
        [
            ("1.14.2", "1.17.0", ["1.16.0"]),
            ("0.15.3", "2.0.0", ["1.16.0"]),
            ("1.14.2", "1.16.1", []),
            ("1.15.0", "1.17.0", []),
        ],
    )
    def test_the_one_that_is_known(self, source: str, target: str, via: list[str]) -> None:
        assert stops(source, target) == via

    def test_the_way_through_a_stop_is_free(self) -> None:
        made = planned("1.12.1", "1.17.1", ALLOWED)
        assert made["stops"] == ["1.16.0"] and "dify_version to 1.16.0" in made["refusals"][0]
        assert "legacy_model_types" in ids(planned("1.12.1", "1.16.0"))
        assert planned("1.16.0", "1.17.1", ALLOWED, legacy_model_types=0)["steps"]

    def test_old_names_that_are_still_there_are_refused_by_name(self) -> None:
        made = planned("1.16.0", "1.17.1", ALLOWED, legacy_model_types=7)
        assert "7 rows" in made["refusals"][0] and "data-migrate legacy-model-types --apply" in made["refusals"][0]


class TestRules:
    @pytest.mark.parametrize(
        ("step", "first"),
        [
            ("fetch_plugins", "1.0.0"),
            ("install_plugins", "1.0.0"),
            ("plugin_names", "1.0.0"),
            ("prepare_vectors", "1.9.2"),
            ("keep_vectors", "1.9.2"),
            ("load_vectors", "1.9.2"),
            ("prepare_storage", "1.10.1"),
            ("storage_owner", "1.10.1"),
            ("sandbox_config", "1.13.3"),
            ("plugin_auto_upgrade", "1.15.0"),
        ],
    )
    def test_due_exactly_when_crossed(self, step: str, first: str) -> None:
        for source, target in itertools.combinations(HEADS, 2):
            crossed = parse_version(source)[:3] < parse_version(first)[:3] <= parse_version(target)[:3]
            assert (step in ids(planned(source, target))) == crossed, (source, target)

    def test_old_model_types_go_with_the_first_release_that_can(self) -> None:
        assert "legacy_model_types" in ids(planned("1.14.2", "1.15.0"))
        assert "legacy_model_types" in ids(planned("1.15.0", "1.16.0"))
        assert "legacy_model_types" not in ids(planned("1.13.3", "1.14.2"))
        assert "legacy_model_types" not in ids(planned("1.14.2", "1.15.0", legacy_model_types=0))

    def test_nothing_is_done_for_what_is_not_there(self) -> None:
        elsewhere = {"store": "qdrant", "internal": True}
        s3 = {"type": "s3", "local": False}
        made = planned("0.15.3", "1.16.0", vector=elsewhere, storage=s3, old_upgrade_strategies=0,
                       sandbox_config={"present": False, "python_path": ""})  # fmt: skip
        assert not {
            "keep_vectors",
            "load_vectors",
            "prepare_storage",
            "storage_owner",
            "sandbox_config",
            "plugin_auto_upgrade",
        } & set(ids(made))

    def test_collections_get_what_searches_ask_for_once(self) -> None:
        assert "vector_properties" in ids(planned("1.12.1", "1.13.1"))
        assert "vector_properties" not in ids(planned("1.7.0", "1.16.0"))  # they are made anew at 1.9.2
        assert "vector_properties" not in ids(planned("1.13.1", "1.16.0"))
        external = planned("1.12.1", "1.14.1", vector={"store": "weaviate", "internal": False})
        assert "vector_properties" not in ids(external) and any("doc_type" in text for text in external["warnings"])

    def test_a_migration_knows_where_it_may_break(self) -> None:
        assert half_committing("1.4.1", "1.4.2") == ["4474872b0ee6"]
        assert half_committing("1.4.2", "1.13.0") == []
        assert half_committing("1.13.0", "1.13.1") == ["6b5f9f8b1a2c"]
        assert half_committing("0.15.3", "1.16.0") == ["4474872b0ee6", "6b5f9f8b1a2c"]
        assert any("6b5f9f8b1a2c" in text for text in planned("1.12.1", "1.14.1")["notes"])

    def test_a_renamed_database_service(self) -> None:
        def renamed(source: str, target: str) -> Any:
            return next(step for step in planned(source, target)["steps"] if step["id"] == "data_services")["renamed"]

        assert renamed("1.9.2", "1.14.1") == {"db": "db_postgres"} and renamed("1.10.1", "1.12.1") == {}

    def test_another_daemon_on_the_same_head_is_said(self) -> None:
        assert any("0.6.0 to 0.6.1" in text for text in planned("1.14.1", "1.14.2")["warnings"])
        assert not any("daemon" in text for text in planned("1.12.0", "1.12.1")["warnings"])
        assert daemon_version("1.10.1-fix.1") == "0.4.1" and daemon_version("0.15.3") == "" == daemon_version("1.99.0")

    def test_what_changes_for_people_is_noted(self) -> None:
        assert any("signs in once more" in text for text in planned("1.9.1", "1.9.2")["notes"])
        assert planned("1.12.0", "1.12.1")["notes"] == []


class TestRefusals:
    def only(self, made: dict[str, Any]) -> str:
        assert len(made["refusals"]) == 1, made["refusals"]
        return str(made["refusals"][0])

    @pytest.mark.parametrize("tag", ["main", "v1.12.1", "1.12"])
    def test_no_tag(self, tag: str) -> None:
        assert "not a release tag" in self.only(plan("1.11.4", tag))

    def test_nothing_there_is_an_installation(self) -> None:
        made = plan("", "1.12.1")
        assert made["kind"] == "install" and not made["steps"] and not made["refusals"]

    def test_unknown_goes_by_the_nearest_one_when_allowed(self) -> None:
        made = planned("1.16.0", "1.16.1", ALLOWED, legacy_model_types=0)
        assert (
            made["kind"] == "other_head" and made["to_head"] == "" and "asked of the new image" in made["warnings"][0]
        )

    def test_another_database_type(self) -> None:
        assert "mysql" in self.only(planned("1.12.1", "1.14.1", database={"type": "mysql"}))

    def test_a_database_that_does_not_answer(self) -> None:
        database = {"type": "postgresql", "error": "password authentication failed"}
        assert "password authentication failed" in self.only(planned("1.12.1", "1.14.1", database=database))

    def test_a_redis_that_cannot_be_asked(self) -> None:
        error = "Redis is reached through sentinels (REDIS_USE_SENTINEL), which this collection cannot ask"
        sentence = self.only(planned("1.12.1", "1.14.1", redis_error=error))
        assert error in sentence and "REDIS_HOST" in sentence
        assert not planned("1.12.0", "1.12.1", redis_error=error)["refusals"]  # nothing is migrated

    @pytest.mark.parametrize(
        ("rights", "expected"),
        [
            ({"superuser": False, "createdb": False}, "ALTER ROLE app CREATEDB"),
            ({"superuser": False, "createdb": True, "not_owned": ["messages", "apps"]}, "does not own messages, apps"),
        ],
    )
    def test_a_role_without_the_rights(self, rights: dict[str, Any], expected: str) -> None:
        database = {"type": "postgresql", "user": "app", **rights}
        assert expected in self.only(planned("1.12.1", "1.14.1", database=database))
        assert not planned("1.12.0", "1.12.1", database=database)["refusals"]

    @pytest.mark.parametrize(
        ("head", "expected"),
        [
            ("2adcbe1f5dfb", "DROP INDEX IF EXISTS public.workflow_node_executions_tenant_id_idx"),
            ("0ec65df55790", "DROP COLUMN IF EXISTS user_id"),
            (HEADS["1.13.3"], "the head of 1.13.1, 1.13.2, 1.13.3"),
            ("0123456789ab", "No known release"),
        ],
    )
    def test_a_head_that_is_not_the_releases(self, head: str, expected: str) -> None:
        assert expected in self.only(planned("1.12.1", "1.16.0", head=head))

    def test_the_stuck_head_is_a_releases_own_at_that_release(self) -> None:
        assert not planned("1.4.1", "1.7.0")["refusals"]

    def test_colliding_names_only_on_the_plugin_road(self) -> None:
        assert "ollama" in self.only(planned("0.15.3", "1.12.1", colliding_providers=["ollama"]))
        assert not planned("1.0.0", "1.12.1", colliding_providers=["ollama"])["refusals"]

    def test_a_secret_key_that_the_new_release_would_make_itself(self) -> None:
        unset = {"set": False, "public": False}
        assert "SECRET_KEY" in self.only(planned("1.12.1", "1.14.1", secret_key=unset))
        assert not planned("1.14.1", "1.16.0", secret_key=unset)["refusals"]

    def test_room_adds_up_on_one_device(self) -> None:
        backup, copies, images = 355 + 20 + 5, 700 + 10, 8000
        needs = backup + copies + images

        def told(backup: int, database: int, docker: int, devices: tuple[int, ...] = (), **more: Any) -> list[str]:
            names = ("backup", "database", "docker")
            free = dict(zip(names, (backup, database, docker)))
            made = planned("1.12.1", "1.16.0", free_mb=free, devices=dict(zip(names, devices)), **more)
            return list(made["refusals"])

        # the three numbers of one disk differ, because somebody writes to it while they are taken
        for devices in ((7, 7, 7), ()):
            assert not told(needs + 2, needs, needs + 1, devices)
            assert f"{needs} MB are needed" in told(needs, needs - 1, needs, devices)[0]
        # two disks on which the same is free are two
        assert not told(images, images, images, (7, 7, 8))
        (sentence,) = told(backup - 1, copies, images, (7, 8, 9))
        assert f"({backup} MB for the backup)" in sentence and "dify_backup_dir" in sentence

    def test_images_that_are_there_need_no_room(self) -> None:
        short = {"backup": 2000, "database": 2000, "docker": 2000}
        assert "8000 MB for the images" in self.only(planned("1.12.1", "1.16.0", free_mb=short))
        assert self.only(planned("1.12.1", "1.16.0", free_mb=short, images_missing=["langgenius/dify-api:1.16.0"]))
        assert not planned("1.12.1", "1.16.0", free_mb=short, images_missing=[])["refusals"]
        assert not planned("1.12.1", "1.16.0", {"images_mb": 0}, free_mb=short)["refusals"]

    def test_a_question_is_a_refusal_until_it_is_answered(self) -> None:
        database = {
            "type": "postgresql",
            "foreign_sessions": [{"pid": 9, "application": "metabase", "client": "10.0.0.9"}],
        }
        made = planned("1.12.1", "1.14.1", database=database)
        assert made["questions"][0]["word"] == "foreign_sessions" and "metabase" in self.only(made)
        answered = planned("1.12.1", "1.14.1", {"accept": ["foreign_sessions"]}, database=database)
        migrate = next(step for step in answered["steps"] if step["id"] == "migrate")
        assert not answered["refusals"] and migrate["end_foreign_sessions"] is True
        assert not planned("1.12.0", "1.12.1", database=database)["questions"]

    @pytest.mark.parametrize(
        ("source", "target", "vector", "word"),
        [
            ("1.7.0", "1.9.2", {"store": "weaviate", "internal": False}, "external_weaviate"),
            ("1.10.1", "1.11.0", {"store": "milvus", "internal": True}, "vector_store"),
            ("1.0.0", "1.12.1", {"store": "oceanbase", "internal": True}, "vector_store"),
            ("1.11.4", "1.12.1", {"store": "milvus", "internal": True}, ""),
            ("1.7.0", "1.12.1", {"store": "milvus", "internal": False}, ""),
            ("1.0.0", "1.16.0", {"store": "qdrant", "internal": True}, ""),
        ],
    )
    def test_stores_of_vectors(self, source: str, target: str, vector: dict[str, Any], word: str) -> None:
        assert [one["word"] for one in planned(source, target, vector=vector)["questions"]] == ([word] if word else [])

    @pytest.mark.parametrize(
        ("source", "target", "image", "vector", "asked"),
        [
            ("1.16.0", "1.18.0", "cr.weaviate.io/semitechnologies/weaviate:1.39.2", {}, True),
            ("1.16.0", "1.18.0", "semitechnologies/weaviate:1.27.9", {}, False),
            ("1.7.0", "1.16.0", "semitechnologies/weaviate:1.39.2", {}, False),  # filled anew
            ("1.16.0", "1.18.0", "semitechnologies/weaviate:1.39.2", {"store": "weaviate", "internal": False}, False),
            ("1.16.0", "1.18.0", "semitechnologies/weaviate:1.39.2", {"store": "qdrant", "internal": True}, False),
            ("1.16.0", "1.18.0", "", {}, False),
        ],
    )
    def test_a_weaviate_that_nobody_knows(
        self, source: str, target: str, image: str, vector: dict[str, Any], asked: bool
    ) -> None:
        more = {"vector": vector} if vector else {}
        options = {**ALLOWED, "images": {"weaviate": image}, "accept": ["external_weaviate"]}
        words = [one["word"] for one in planned(source, target, options, legacy_model_types=0, **more)["questions"]]
        assert words == (["newer_weaviate"] if asked else [])


class TestInCharge:
    def test_the_link_counts_once_the_release_was_proved(self) -> None:
        dify: dict[str, Any] = {"current": "1.12.1", "containers": [{"name": "dify-api-1"}], "data": True}
        assert in_charge(dify) == "1.12.1"
        begun = {"from": "1.11.4", "to": "1.12.1"}
        for phase, release in (
            ("running", "1.11.4"),
            ("rolling_back", "1.11.4"),
            ("proved", "1.12.1"),
            ("done", "1.12.1"),
        ):
            assert in_charge({**dify, "upgrade": {**begun, "phase": phase}}) == release

    def test_a_release_that_never_ran_is_none(self) -> None:
        assert in_charge({"current": "1.12.1", "containers": [], "data": False}) == "" == in_charge({"current": ""})
        assert in_charge({"current": "1.12.1", "containers": [], "data": True}) == "1.12.1"


class TestWarnings:
    def test_an_unfinished_upgrade_is_told_first(self) -> None:
        begun = {"id": "x", "from": "1.11.4", "to": "1.12.1", "phase": "running", "step": "migrate"}
        made = planned("1.11.4", "1.12.1", {"last": begun})
        assert "'migrate'" in made["warnings"][0] and "rolled back first" in made["warnings"][0]
        made = planned("1.12.1", "1.12.1", {"last": {**begun, "phase": "proved", "step": "prune"}})
        assert "finishes what is left" in made["warnings"][0]
        assert not planned("1.12.1", "1.12.1", {"last": {**begun, "phase": "done"}})["warnings"]

    def test_a_try_that_was_rolled_back_is_told_first_and_only_of_the_same_way(self) -> None:
        tried = {"from": "1.11.4", "to": "1.12.1", "phase": "rolled_back", "message": "It failed at migrate: no room."}
        made = planned("1.11.4", "1.12.1", {"last": tried, "backup_storage": False})
        assert made["warnings"][0] == "This was tried before, and rolled back. It failed at migrate: no room."
        assert not planned("1.11.4", "1.12.0", {"last": tried})["warnings"]

    def test_a_setting_that_becomes_a_mistake(self) -> None:
        def told(source: str, target: str) -> bool:
            made = planned(source, target, set_keys=["CELERY_QUEUES"])
            return any("CELERY_QUEUES" in text for text in made["warnings"])

        assert told("1.14.1", "1.16.0") and not told("1.12.1", "1.15.0")
        assert not any("CELERY_QUEUES" in text for text in planned("1.14.1", "1.16.0")["warnings"])

    def test_what_is_wrong_already_is_said(self) -> None:
        made = planned(
            "1.12.1", "1.14.1", {"backup_storage": False},
            secret_key={"set": True, "public": True}, lock_ttl_ms=3000, errors=["redis: no answer"],
            private_keys={"missing": ["tenant-1"], "foreign": ["tenant-2"]},
            plugin_files_without_row=["old"], plugins=[{"id": "langgenius/ollama", "file": False}],
            database={"type": "postgresql", "invalid_indexes": ["an_idx"]},
        )  # fmt: skip
        told = " ".join(made["warnings"])
        for word in (
            "forged",
            "lock",
            "tenant-1",
            "tenant-2",
            "redis: no answer",
            "old",
            "langgenius/ollama",
            "an_idx",
            "dify_backup_storage",
        ):
            assert word in told
        assert not made["refusals"]
