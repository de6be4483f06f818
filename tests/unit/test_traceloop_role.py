# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the variables of role traceloop come to, in its own tasks and in those of role dify, which is handed a part."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, lookup_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.llmops.stack.plugins.filter.traceloop import FilterModule
from ansible_collections.llmops.stack.plugins.lookup.folder import LookupModule

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "traceloop"
COST_LOG = str(ROOT / "examples/monitoring/cost-log")
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """A variable of the role as a task of it, or of the role `by`, would see it."""
    (plan,) = FilterModule().filters().values()
    find_filter, find_lookup = filter_loader.get, lookup_loader.get
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        variables.update(loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True))

    def get_filter(name: str, *args: Any, **options: Any) -> Any:
        if name == "llmops.stack.traceloop_plan":
            return filter_loader._wrap_func(name, name, plan)
        return find_filter(name, *args, **options)

    def get_lookup(name: str, *args: Any, **options: Any) -> Any:
        if name == "llmops.stack.folder":
            return LookupModule(*args, **options)
        return find_lookup(name, *args, **options)

    def ask(name: str, by: str = "traceloop", **given: Any) -> Any:
        role = ROOT / "roles" / by
        everything = {
            **variables,
            "dify_version": "1.12.1",
            "inventory_hostname": "dify1",
            "ansible_facts": {},
            "ansible_check_mode": False,
            "ansible_search_path": [str(role)],
            "role_path": str(role),
            **given,
        }
        return Templar(loader=loader, variables=everything).template(trust_as_template("{{ " + name + " }}"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filter_loader, "get", get_filter)
        patch.setattr(lookup_loader, "get", get_lookup)
        patch.setattr(LookupModule, "set_options", lambda *_args, **_options: None)  # it has none, and no loader here
        yield ask


def test_without_a_key_and_an_address_there_is_nothing(ask: Ask) -> None:
    assert ask("__traceloop_plan")["enabled"] is False
    assert ask("__traceloop_plan.fragments", by="dify") == []
    assert ask("__traceloop_plan.traces", by="dify") == {}


def test_what_was_collected_goes_only_if_somebody_says_so(ask: Ask) -> None:
    facts = {"llmops_stack": {"traceloop": {"present": True}}}
    (sentence,) = ask("__traceloop_plan.refusals", ansible_facts=facts)
    assert "/opt/traceloop" in sentence and "traceloop_backend: none" in sentence and "traceloop_api_key" in sentence
    assert ask("__traceloop_plan.refusals", ansible_facts=facts, traceloop_backend="none") == []
    assert ask("__traceloop_plan.refusals", ansible_facts=facts, traceloop_api_key="k") == []


def test_nothing_is_read_where_nothing_is_written(ask: Ask) -> None:
    given = {"traceloop_plugins": ["/there/is/none"]}
    for off in ({}, {"traceloop_backend": "none", "traceloop_api_key": "k"}):
        assert ask("__traceloop_variables.monitoring", **given, **off) == {}
        assert ask("__traceloop_plan.enabled", **given, **off) is False
    for on in ({"traceloop_backend": "phoenix"}, {"traceloop_api_key": "k"}, {"traceloop_base_url": "http://t"}):
        assert ask("__traceloop_variables.monitoring", **on) != {}


def test_role_dify_runs_whenever_what_it_mounts_may_change() -> None:
    (play,) = [one for one in yaml.safe_load((ROOT / "playbooks/site.yml").read_text()) if one["name"] == "Dify hosts"]
    tags = {one["role"].rpartition(".")[2]: set(one["tags"]) for one in play["roles"]}
    (finish,) = [set(task["tags"]) for task in play["tasks"]]
    assert tags["traceloop"] == tags["dify"] == finish


@pytest.mark.parametrize(
    ("given", "backend"),
    [
        ({"traceloop_api_key": "k"}, "traceloop"),
        ({"traceloop_base_url": "http://tempo:4318"}, "otlp"),
        ({"traceloop_api_key": "k", "traceloop_base_url": "https://own.example.com"}, "traceloop"),
    ],
)
def test_what_is_given_says_which_backend_is_meant(ask: Ask, given: dict[str, Any], backend: str) -> None:
    assert ask("__traceloop_plan.backend", **given) == backend


@pytest.mark.parametrize("backend", ["phoenix", "lgtm"])
def test_role_dify_is_handed_the_same_as_the_role_has_written(ask: Ask, backend: str) -> None:
    given = {"traceloop_backend": backend, "traceloop_plugins": [COST_LOG]}
    assert ask("__traceloop_plan", by="dify", **given) == ask("__traceloop_plan", **given)


def test_every_file_of_the_runtime_is_written(ask: Ask) -> None:
    files = ask("__traceloop_plan.files", traceloop_backend="phoenix", traceloop_plugins=[COST_LOG])
    for folder, below in (
        (ROLE / "files/monitoring", "monitoring"),
        (pathlib.Path(COST_LOG), "monitoring/plugins/cost-log"),
    ):
        for path in folder.rglob("*"):
            hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)
            if path.is_file() and not hidden:
                assert files[f"{below}/{path.relative_to(folder)}"] == path.read_text(), path


def test_grafanas_container_gets_dashboards_and_rules(ask: Ask) -> None:
    plan = ask("__traceloop_plan", traceloop_backend="lgtm")
    assert any(path.startswith("grafana/") and path.endswith(".json") for path in plan["files"])
    (lgtm,) = [one for name, one in plan["fragments"][0]["services"].items() if name == "lgtm"]
    mounts = {inside: source for source, inside, *_mode in (volume.split(":") for volume in lgtm["volumes"])}
    for name, key in (("grafana.yaml", "grafana"), ("prometheus.yaml", "prometheus")):
        text = plan["files"][f"provision/{name}"]
        (inside,) = [path for path in mounts if path in text and mounts[path].endswith(key)]
        assert mounts[inside] == f"/opt/traceloop/{key}"
    assert any(path.startswith("prometheus/") and path.endswith(".yml") for path in plan["files"])


def test_the_question_to_an_unknown_release_is_answered(ask: Ask, tmp_path: pathlib.Path) -> None:
    """The program for its image, run with this Python and a folder in the place of Dify's."""
    files = ask("__traceloop_plan.ask", traceloop_backend="phoenix", dify_version="1.99.0")
    program = (ROLE / "files/ask.py").read_text()
    client = tmp_path / "core/plugin/impl/model.py"
    client.parent.mkdir(parents=True)
    for body, code in (("def invoke_llm(self): ...", 0), ("def call(self): ...", 1)):
        client.write_text(f"class PluginModelClient:\n    {body}\n")
        command = [sys.executable, "-c", program.replace("/app/api", str(tmp_path))]
        said = subprocess.run(command, input=json.dumps(files), capture_output=True, text=True, check=False)
        assert said.returncode == code, said.stderr
        asked = {"rc": code, "stdout": said.stdout}
        given = {"traceloop_backend": "phoenix", "dify_version": "1.99.0", "__traceloop_hook": asked}
        assert bool(ask("__traceloop_plan.no_hook", **given)) == bool(code)
        assert ("api" in ask("__traceloop_plan.fragments", by="dify", **given)[0]["services"]) != bool(code)


@pytest.mark.parametrize("required", [True, False, "false"])
def test_an_image_that_gives_no_answer(ask: Ask, required: Any) -> None:
    """Then the task fails, unless the run is to go on whatever becomes of the calls; then nothing is mounted."""
    given = {
        "traceloop_backend": "phoenix",
        "dify_version": "1.99.0",
        "traceloop_required": required,
        "__traceloop_hook": {"rc": 125, "stdout": "", "stderr": "no such image"},
    }
    assert ask("__traceloop_plan.unanswered", **given) is True
    assert ("api" in ask("__traceloop_plan.fragments", by="dify", **given)[0]["services"]) == (required is True)
    assert ("could not be asked" in str(ask("__traceloop_plan.summary", **given))) != (required is True)


def test_a_release_is_asked_once_and_only_where_somebody_answers(ask: Ask) -> None:
    given: dict[str, Any] = {"traceloop_backend": "phoenix", "dify_version": "1.99.0"}
    running = {"ansible_facts": {"llmops_stack": {"engine": {"running": True}, "dify": {"current": "/opt/dify"}}}}
    assert ask("__traceloop_asking", **given) is True
    assert ask("__traceloop_asking", **given, ansible_check_mode=True) is False
    assert ask("__traceloop_asking", **given, **running, ansible_check_mode=True) is True
    assert ask("__traceloop_asking", **given, **running, __traceloop_hook={"rc": 1}) is False
    assert ask("__traceloop_asking", **{**given, "dify_version": "1.12.1"}, **running) is False
    assert (ask("__traceloop_dify_here", **given), ask("__traceloop_dify_here", **given, **running)) == (False, True)


def test_secrets_are_marked_as_such() -> None:
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    secret = {name for name, option in options.items() if option.get("no_log")}
    assert secret == {
        "traceloop_api_key",
        "traceloop_headers",
        "traceloop_metrics_headers",
        "traceloop_plugin_env",
        "traceloop_collector_env",
    }
