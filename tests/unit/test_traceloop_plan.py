# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What role traceloop decides, from its variables alone: every backend, with a collector and without, every release."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import yaml
from ansible_collections.llmops.stack.plugins.filter import traceloop
from ansible_collections.llmops.stack.plugins.module_utils._dify_env import Release
from ansible_collections.llmops.stack.plugins.module_utils._dify_override import active_services, environment
from ansible_collections.llmops.stack.plugins.module_utils._dify_versions import HEADS, release_info
from ansible_collections.llmops.stack.plugins.module_utils._traceloop_services import COLLECTOR

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEY = "tl_0123456789abcdef"
VARIABLES = {
    **yaml.safe_load((ROOT / "roles/traceloop/defaults/main.yml").read_text()),
    "traceloop_backend": "traceloop",
    "host": "dify1",
    "address": "192.0.2.10",
    "ssh": "dify1.example.com",
    "dify_version": "1.12.1",
    "registry": "",
    "monitoring": {"sitecustomize.py": "import sys\n", "plugins/traceloop/main.py": "\n"},
    "grafana": {"calls.json": "{}\n"},
    "prometheus": {"alerts.yml": "groups: []\n"},
    "provision": {"grafana.yaml": "apiVersion: 1\n", "prometheus.yaml": "rule_files: []\n"},
    "plugins": [],
}
WANTED: dict[str, dict[str, Any]] = {
    "traceloop": {"traceloop_api_key": KEY},
    "traceloop elsewhere": {"traceloop_api_key": KEY, "traceloop_base_url": "https://traces.example.com"},
    "otlp": {"traceloop_backend": "otlp", "traceloop_base_url": "http://tempo.example.com:4318"},
    "phoenix": {"traceloop_backend": "phoenix"},
    "phoenix elsewhere": {
        "traceloop_backend": "phoenix",
        "traceloop_base_url": "https://phoenix.example.com",
        "traceloop_api_key": KEY,
    },
    "lgtm": {"traceloop_backend": "lgtm"},
    "lgtm elsewhere": {"traceloop_backend": "lgtm", "traceloop_base_url": "http://lgtm.example.com:4318"},
}
MANIFEST = {
    "name": "cost-log",
    "version": "1.0.0",
    "description": "Costs",
    "main": "main.py",
    "dependencies": {},
    "hooks": {"after_invoke": "record"},
}
Plan = dict[str, Any]


def plan(facts: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None, **given: Any) -> Plan:
    return traceloop.plan({**VARIABLES, **given}, facts, asked)


def wanted(name: str, **given: Any) -> Plan:
    found = plan(**{**WANTED[name], **given})
    assert found["refusals"] == []
    return found


def refusal(facts: Mapping[str, Any] | None = None, **given: Any) -> str:
    found = plan(facts, **given)
    (sentence,) = found["refusals"]
    assert found["files"] == {} and found["secret_files"] == {} and found["fragments"] == []
    return str(sentence)


def services(found: Plan) -> dict[str, Any]:
    (fragment,) = found["fragments"]
    return dict(fragment["services"])


def env(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {key: value.strip("'") for key, _equals, value in (line.partition("=") for line in lines)}


def config(found: Plan) -> dict[str, Any]:
    return dict(yaml.safe_load(found["files"]["collector/config.yaml"]))


@pytest.fixture(params=[True, False], ids=["collector", "direct"])
def collector(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("name", WANTED)
class TestEveryBackend:
    def test_api_and_worker_load_the_runtime_read_only(self, name: str, collector: bool) -> None:
        found = services(wanted(name, traceloop_collector=collector))
        for service in ("api", "worker"):
            assert found[service]["volumes"] == ["/opt/traceloop/monitoring:/opt/llmops-monitoring:ro"]
            assert found[service]["environment"]["PYTHONPATH"] == "/opt/llmops-monitoring"
            assert found[service]["env_file"] == ["/opt/traceloop/dify.env"]
        assert not set(found) & {"worker_beat", "api_websocket", "plugin_daemon", "web"}

    def test_a_key_is_in_one_secret_file_and_nowhere_else(self, name: str, collector: bool) -> None:
        found = wanted(name, traceloop_collector=collector)
        holds = [path for path, text in found["secret_files"].items() if KEY in text]
        if "traceloop_api_key" in WANTED[name]:
            assert holds == ["collector/collector.env" if collector else "dify.env"]
        else:
            assert holds == []
        # the check of the health module needs it where Phoenix asks for one, and hides it
        headers = json.dumps(found.pop("traces").get("headers", {}))
        assert (KEY in headers) == (name == "phoenix elsewhere")
        found.pop("secret_files")
        assert KEY not in json.dumps(found)

    def test_content_is_sent_only_if_asked_for(self, name: str, collector: bool) -> None:
        for asked in (False, True):
            found = wanted(name, traceloop_collector=collector, traceloop_trace_content=asked)
            said = env(found["secret_files"]["dify.env"])
            assert said["TRACELOOP_TRACE_CONTENT"] == str(asked).lower()
            assert any("users and models say is not sent" in line for line in found["summary"]) != asked

    def test_metrics_go_where_they_are_taken(self, name: str, collector: bool) -> None:
        found = wanted(name, traceloop_collector=collector)
        takes = not name.startswith("phoenix")
        assert env(found["secret_files"]["dify.env"])["TRACELOOP_METRICS_ENABLED"] == str(takes).lower()
        if collector:
            assert ("metrics" in config(found)["service"]["pipelines"]) == takes
        found = wanted(name, traceloop_collector=collector, traceloop_metrics=False)
        assert env(found["secret_files"]["dify.env"])["TRACELOOP_METRICS_ENABLED"] == "false"

    def test_where_the_health_check_looks(self, name: str, collector: bool) -> None:
        found = wanted(name, traceloop_collector=collector)
        traces = found["traces"]
        ours = {one for one, what in services(found).items() if "image" in what}
        assert set(traces["services"]) == ours
        assert traces["backend"] == ("phoenix" if name.startswith("phoenix") else "collector" if collector else "none")
        assert traces["collector"] == (COLLECTOR if collector else "")
        assert traces["target"]

    def test_a_changed_file_recreates_only_whom_it_is_for(self, name: str, collector: bool) -> None:
        before = services(wanted(name, traceloop_collector=collector))
        after = services(wanted(name, traceloop_collector=collector, monitoring={"sitecustomize.py": "import os\n"}))
        assert {one for one in before if before[one] != after[one]} == {"api", "worker"}
        after = services(wanted(name, traceloop_collector=collector, traceloop_queue_mb=77))
        assert {one for one in before if before[one] != after[one]} == ({COLLECTOR} if collector else set())
        after = services(wanted(name, traceloop_collector=collector, traceloop_trace_content=True))
        assert {one for one in before if before[one] != after[one]} >= {"api", "worker"}

    def test_nothing_listens_on_the_world(self, name: str, collector: bool) -> None:
        published = [
            port
            for one in services(wanted(name, traceloop_collector=collector)).values()
            for port in one.get("ports", [])
        ]
        assert all(port.startswith("127.0.0.1:") for port in published)
        assert len(published) == (1 if name in ("phoenix", "lgtm") else 0)

    def test_every_release_can_be_given_the_fragment(
        self, name: str, collector: bool, dify_tag: str, release: Release
    ) -> None:
        """Services that are only added to are there, and nothing that the compose file sets is in our env file."""
        given: dict[str, Any] = {
            "traceloop_collector": collector,
            "dify_version": dify_tag,
            "traceloop_dify_otel": collector,
        }
        if name.startswith("phoenix") and not (collector or release_info(dify_tag)["own_otel"]):
            assert "traceloop_collector: true" in refusal(**{**WANTED[name], **given})
            return
        found = wanted(name, **given)
        for service, one in services(found).items():
            if "image" in one:
                assert service not in release.compose["services"]
                continue
            assert service in active_services(release.compose, [""])
            said = env(found["secret_files"]["dify.env"])
            assert not set(said) & set(environment(release.compose["services"][service]))
            mounts = [str(volume).split(":")[1] for volume in release.compose["services"][service].get("volumes", [])]
            assert "/opt/llmops-monitoring" not in mounts
            assert "PYTHONPATH" not in environment(release.compose["services"][service])


def test_none_is_nothing_at_all() -> None:
    found = plan(traceloop_backend="none", traceloop_base_url="rubbish", plugins=[["/x", {}]])
    assert found["enabled"] is False
    assert {key: value for key, value in found.items() if value} == {"backend": "none"}


@pytest.mark.parametrize("ending", ["", "/", "/v1/traces", "/v1/traces/", "/v1/metrics"])
def test_an_address_may_be_the_one_of_a_signal(ending: str) -> None:
    found = wanted("otlp", traceloop_collector=False, traceloop_base_url=f"http://backend/otlp{ending}")
    said = env(found["secret_files"]["dify.env"])
    assert said["TRACELOOP_BASE_URL"] == "http://backend/otlp/v1/traces"
    assert said["TRACELOOP_METRICS_ENDPOINT"] == "http://backend/otlp/v1/metrics"


@pytest.mark.parametrize("switch", ["trace_content", "metrics", "collector", "dify_otel"])
def test_a_switch_of_the_command_line_is_a_text(switch: str) -> None:
    for said, meant in (("false", False), ("true", True)):
        assert wanted("otlp", **{f"traceloop_{switch}": said}) == wanted("otlp", **{f"traceloop_{switch}": meant})


class TestDirect:
    def test_dify_sends_to_the_backend_itself(self) -> None:
        found = wanted("traceloop", traceloop_collector=False)
        said = env(found["secret_files"]["dify.env"])
        assert said["TRACELOOP_BASE_URL"] == "https://api.traceloop.com/v1/traces"
        assert said["TRACELOOP_METRICS_ENDPOINT"] == "https://api.traceloop.com/v1/metrics"
        assert said["TRACELOOP_HEADERS"] == f"authorization=Bearer%20{KEY}"
        assert "collector/config.yaml" not in found["files"] and found["validate"] == []
        assert COLLECTOR not in services(found)

    def test_the_plugin_reads_what_is_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(ROOT / "roles/traceloop/files/monitoring/plugins"))
        from traceloop.config import Settings  # on the path by the line above

        headers = {"X-Scope": "a=b, c%20", "Authorization": "Basic dTpw"}
        found = wanted(
            "otlp",
            traceloop_collector=False,
            traceloop_headers=headers,
            traceloop_metrics_url="http://prometheus:9090/api/v1/otlp",
        )
        settings = Settings(env(found["secret_files"]["dify.env"]))
        assert settings.reason == ""
        assert settings.headers == {"x-scope": "a=b, c%20", "authorization": "Basic dTpw"}
        assert settings.traces_url == "http://tempo.example.com:4318/v1/traces"
        assert settings.metrics_url == "http://prometheus:9090/api/v1/otlp/v1/metrics"
        assert settings.metrics_headers == {}, "another place gets no key of this one"


class TestCollector:
    def test_what_cannot_be_delivered_waits_on_disk(self) -> None:
        made = config(wanted("traceloop"))
        for exporter in ("otlp_http/traces", "otlp_http/metrics"):
            assert made["exporters"][exporter]["sending_queue"]["storage"] in made["service"]["extensions"]
            assert made["exporters"][exporter]["retry_on_failure"]["max_elapsed_time"] == "0s"
        (folder,) = wanted("traceloop")["directories"]
        assert folder["path"].startswith("queue/") and folder["mode"] == "0700"
        assert folder["owner"] == folder["group"] == "10001"
        mounted = services(wanted("traceloop"))[COLLECTOR]["volumes"]
        assert f"/opt/traceloop/{folder['path']}:/var/lib/otelcol/queue" in mounted

    def test_what_waits_is_for_nobody_else(self) -> None:
        """A new key, another size or another release do not throw away what waits; another place does."""

        def place(**given: Any) -> str:
            found = wanted("otlp", **given)
            (folder,) = found["directories"]
            assert "queue" not in found["keep"]
            return str(folder["path"])

        same: list[dict[str, Any]] = [
            {"traceloop_headers": {"X-Key": "new"}},
            {"traceloop_queue_mb": 7},
            {"dify_version": "1.16.0"},
        ]
        assert {place(**given) for given in same} == {place()}
        other: list[dict[str, Any]] = [
            {"traceloop_base_url": "http://other.example.com:4318"},
            {"traceloop_metrics_url": "http://other.example.com:4318"},
            {"traceloop_trace_content": True},
        ]
        assert len({place(), *(place(**given) for given in other)}) == 4
        assert "queue" in wanted("otlp", traceloop_collector=False)["keep"]

    def test_the_queue_has_a_size_in_bytes(self) -> None:
        queue = config(wanted("otlp", traceloop_queue_mb="3"))["exporters"]["otlp_http/traces"]["sending_queue"]
        assert (queue["sizer"], queue["queue_size"]) == ("bytes", 3 * 1024 * 1024)

    def test_a_backend_beside_it_is_reached_without_a_proxy(self) -> None:
        for name in WANTED:
            said = env(wanted(name)["secret_files"]["collector/collector.env"])
            assert said.get("NO_PROXY", "") == (name if name in ("phoenix", "lgtm") else ""), "others may need one"

    def test_its_environment_is_as_given(self) -> None:
        given = {"COMPRESS": True, "NAME": "x"}
        said = env(wanted("otlp", traceloop_collector_env=given)["secret_files"]["collector/collector.env"])
        assert said == {"COMPRESS": "true", "NAME": "x"}

    def test_every_part_that_a_pipeline_names_is_there(self) -> None:
        for name in WANTED:
            for otel in (False, True):
                made = config(wanted(name, traceloop_dify_otel=otel))
                for pipeline in made["service"]["pipelines"].values():
                    for section in ("receivers", "processors", "exporters"):
                        assert set(pipeline[section]) <= set(made[section]), (name, section)

    def test_headers_are_variables_of_its_environment(self) -> None:
        found = wanted("otlp", traceloop_headers={"X-Key": "s3cret:x"}, traceloop_metrics_headers={"X-Key": "0ther"})
        made, said = config(found)["exporters"], env(found["secret_files"]["collector/collector.env"])
        assert made["otlp_http/traces"]["headers"] == {"x-key": "${env:TRACES_HEADER_1}"}
        assert made["otlp_http/metrics"]["headers"] == {"x-key": "${env:METRICS_HEADER_1}"}
        assert said == {"TRACES_HEADER_1": "s3cret:x", "METRICS_HEADER_1": "0ther"}

    def test_an_operators_configuration_is_laid_over_it(self) -> None:
        extra = {
            "exporters": {
                "otlp_http/traces": {"tls": {"ca_file": "/ca.pem"}},
                "otlp_http/second": {"endpoint": "http://b"},
            },
            "service": {"pipelines": {"traces": {"exporters": ["otlp_http/traces", "otlp_http/second"]}}},
        }
        made = config(wanted("traceloop", traceloop_collector_config=extra))
        assert made["exporters"]["otlp_http/traces"]["traces_endpoint"] == "https://api.traceloop.com/v1/traces"
        assert made["exporters"]["otlp_http/traces"]["tls"] == {"ca_file": "/ca.pem"}
        assert made["service"]["pipelines"]["traces"]["exporters"] == ["otlp_http/traces", "otlp_http/second"]
        assert made["service"]["pipelines"]["traces"]["receivers"] == ["otlp"]

    def test_its_own_program_looks_at_it_first(self) -> None:
        (check,) = wanted("traceloop", registry="mirror.example.com:5000")["validate"]
        assert check["path"] == "collector/config.yaml"
        assert "mirror.example.com:5000/otel/opentelemetry-collector-contrib:0.155.0" in check["argv"]
        assert any(part.startswith("%s:") and part.endswith(":ro") for part in check["argv"])

    def test_its_program_is_given_its_environment(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As compose would give it, whatever is in a value."""
        docker = tmp_path / "docker"
        docker.write_text('#!/bin/sh\necho "$@"\ncat "$3"\n')
        docker.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        values = ["plain", "http://b:4318/?a=b c", "it's", "$x 'y'", 'say "$HOME"', "back\\slash\\", "#no", ""]
        given = {f"V{number}": value for number, value in enumerate(values)}
        found = wanted("otlp", traceloop_collector_env=given)
        (tmp_path / "collector.env").write_text(found["secret_files"]["collector/collector.env"])
        argv = [part.replace("%d", str(tmp_path)) for part in found["validate"][0]["argv"]]
        first, *lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        assert first.startswith("run --env-file /dev/stdin --rm --network none") and "validate" not in lines
        assert dict(line.split("=", 1) for line in lines) == given

    def test_its_program_looks_again_when_it_or_its_environment_is_another(self) -> None:
        files = [
            wanted("otlp", **given)["files"]["collector/config.yaml"]
            for given in (
                {},
                {"traceloop_collector_image": "otel/opentelemetry-collector-contrib:0.156.0"},
                {"traceloop_collector_env": {"NAME": "x"}},
                {"traceloop_collector_env": {"NAME": "y"}},
            )
        ]
        assert len(set(files)) == len(files)
        assert len({text.partition("receivers:")[2] for text in files}) == 1, "what it reads is the same"

    def test_it_reads_the_file_that_was_looked_at(self) -> None:
        """An image that looks elsewhere by itself would start with another one."""
        one = services(wanted("otlp"))[COLLECTOR]
        assert any(volume.endswith(f":{one['command'][1]}:ro") for volume in one["volumes"])


class TestDifysOwnSpans:
    def test_the_daemon_is_asked_only_where_it_can(self) -> None:
        sends = {
            tag: services(wanted("otlp", dify_version=tag, traceloop_dify_otel=True))
            for tag in ("0.15.3", "1.2.0", "1.3.0", "1.12.1", "1.13.1", "1.13.3", "1.14.1", "1.16.0")
        }
        assert [tag for tag, one in sends.items() if "ENABLE_OTEL" in one["api"]["environment"]] == [
            "1.3.0", "1.12.1", "1.13.1", "1.13.3", "1.14.1", "1.16.0",
        ]  # fmt: skip
        assert [tag for tag, one in sends.items() if "plugin_daemon" in one] == ["1.13.1", "1.14.1", "1.16.0"]

    def test_what_does_not_come_is_said(self) -> None:
        said = {tag: wanted("otlp", dify_version=tag, traceloop_dify_otel=True)["notes"] for tag in HEADS}
        assert any("from 1.3.0 on" in note for note in said["1.2.0"])
        assert any("from 0.5.4 on" in note for note in said["1.12.1"])
        assert not any("traceloop_dify_otel" in note for note in said["1.14.1"])

    def test_it_needs_the_collector(self) -> None:
        sentence = refusal(traceloop_api_key=KEY, traceloop_dify_otel=True, traceloop_collector=False)
        assert "traceloop_collector: true" in sentence


class TestUnknownRelease:
    NEWER = "1.99.0"

    def test_it_is_asked_itself(self) -> None:
        found = wanted("traceloop", dify_version=self.NEWER, registry="mirror:5000")
        assert found["check_image"] and found["image"] == f"mirror:5000/langgenius/dify-api:{self.NEWER}"
        assert "sitecustomize.py" in found["ask"]
        assert "api" in services(found)
        assert not any(wanted("traceloop", dify_version=tag)["check_image"] for tag in HEADS)

    def test_with_a_hook_point_it_is_like_any_other(self) -> None:
        given = {**WANTED["traceloop"], "dify_version": self.NEWER}
        asked = {"rc": 0, "stdout": json.dumps({"generation": "1.3.1"})}
        assert plan(asked=asked, **given)["fragments"] == plan(**given)["fragments"]
        assert plan(asked=asked, **given)["no_hook"] == ""

    def test_without_one_nothing_is_mounted(self) -> None:
        asked = {"rc": 1, "stdout": json.dumps({"generation": None})}
        found = plan(asked=asked, **WANTED["traceloop"], dify_version=self.NEWER)
        assert self.NEWER in found["no_hook"]
        assert set(services(found)) == {COLLECTOR}
        assert found["traces"] == {}
        assert "not seen" in found["summary"][0]

    def test_what_is_no_tag_is_left_to_role_dify(self) -> None:
        assert wanted("traceloop", dify_version="main")["check_image"] is False


class TestOwnPlugins:
    FILES: ClassVar = {
        "plugin.json": json.dumps(MANIFEST),
        "main.py": "def record(event): ...\n",
        "data/prices.json": "{}",
    }

    def test_they_stand_beside_ours_under_their_own_names(self) -> None:
        found = wanted("phoenix", plugins=[["/somewhere/folder", self.FILES]], traceloop_plugin_env={"COST_LOG": True})
        assert found["files"]["monitoring/plugins/cost-log/data/prices.json"] == "{}"
        assert env(found["secret_files"]["dify.env"])["COST_LOG"] == "true"
        assert any("cost-log 1.0.0" in line for line in found["summary"])

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"main": "other.py"}, "main must be a Python file"),
            ({"version": "1"}, "version must be like 1.2.3"),
            ({"hooks": {"on_everything": "record"}}, "hooks.on_everything is unknown"),
            ({"name": "traceloop"}, "the plugin that this role brings"),
        ],
    )
    def test_what_the_runtime_would_refuse_is_refused_before(self, change: dict[str, Any], word: str) -> None:
        files = {**self.FILES, "plugin.json": json.dumps({**MANIFEST, **change})}
        sentence = refusal(**WANTED["phoenix"], plugins=[["/somewhere/folder", files]])
        assert word in sentence and "/somewhere/folder" in sentence

    def test_two_of_one_name_are_refused(self) -> None:
        other = {**self.FILES, "plugin.json": json.dumps({**MANIFEST, "name": "cost_log"})}
        sentence = refusal(**WANTED["phoenix"], plugins=[["/a", self.FILES], ["/b", other]])
        assert "/a" in sentence and "/b" in sentence
        said = refusal(**WANTED["phoenix"], plugins=[["/a", {}]])
        assert "/a" in said and "plugin.json cannot be read: No such file" in said
        assert "/tmp" not in said

    def test_the_example_is_one(self) -> None:
        folder = ROOT / "examples/monitoring/cost-log"
        files = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
        assert wanted("phoenix", plugins=[[str(folder), files]])


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({}, ("takes nothing without a key", "traceloop_api_key")),
            ({"traceloop_backend": "otlp"}, ("traceloop_base_url",)),
            ({"traceloop_backend": "jaeger"}, ("jaeger", "phoenix")),
            ({"traceloop_backend": "otlp", "traceloop_base_url": "grpc://t:4317"}, ("grpc://t:4317", "over HTTP")),
            ({"traceloop_backend": "otlp", "traceloop_base_url": "tempo:4318"}, ("tempo:4318", "http://")),
            ({"traceloop_backend": "otlp", "traceloop_base_url": "http://t:99999"}, ("http://",)),
            ({"traceloop_backend": "otlp", "traceloop_base_url": "http://t/?token=x"}, ("after ?",)),
            ({"traceloop_backend": "phoenix", "traceloop_metrics_url": "nowhere"}, ("traceloop_metrics_url",)),
            ({"traceloop_backend": "phoenix", "traceloop_bind_address": "eth0"}, ("traceloop_bind_address",)),
            ({"traceloop_backend": "phoenix", "traceloop_home": "/opt"}, ("traceloop_home",)),
            ({"traceloop_backend": "phoenix", "traceloop_home": "/opt/a b"}, ("traceloop_home",)),
            ({"traceloop_backend": "phoenix", "traceloop_queue_mb": 0}, ("traceloop_queue_mb",)),
            (
                {"traceloop_backend": "phoenix", "traceloop_collector_config": {"exporter": {}}},
                ("exporter", "receivers"),
            ),
            (
                {"traceloop_backend": "phoenix", "traceloop_collector_config": {"exporters": []}},
                ("exporters", "mapping"),
            ),
            ({"traceloop_backend": "phoenix", "traceloop_plugin_env": {"A-B": "1"}}, ("'A-B'",)),
            ({"traceloop_backend": "phoenix", "traceloop_plugin_env": {"A": "1\n2"}}, ("line end",)),
            (
                {"traceloop_backend": "phoenix", "traceloop_plugin_env": {"TRACELOOP_BASE_URL": "x"}},
                ("traceloop_base_url",),
            ),
            ({"traceloop_backend": "phoenix", "traceloop_plugin_env": {"PYTHONPATH": "x"}}, ("PYTHONPATH",)),
            (
                {"traceloop_backend": "phoenix", "traceloop_collector_env": {"TRACES_HEADER_1": "x"}},
                ("TRACES_HEADER_1", "another name"),
            ),
            ({"traceloop_backend": "phoenix", "traceloop_collector_env": {"GOMEMLIMIT": "x"}}, ("GOMEMLIMIT",)),
            (
                {"traceloop_backend": "phoenix", "traceloop_collector": False, "dify_version": "1.2.0"},
                ("1.2.0", "traceloop_collector: true"),
            ),
            ({"traceloop_headers": {"X Y": "1"}}, ("'x y'",)),
            ({"dify_version": "", "traceloop_api_key": KEY}, ("llmops.stack.dify",)),
        ],
    )
    def test_says_what_is_wrong_and_what_to_do(self, given: dict[str, Any], words: tuple[str, ...]) -> None:
        sentence = refusal(**given)
        assert all(word in sentence for word in words), sentence

    @pytest.mark.parametrize("value", ["s3cr\u00e9t", "s3cr\net", "s3cr$et"])
    def test_no_key_is_ever_quoted(self, value: str) -> None:
        for given in ({"traceloop_api_key": value}, {"traceloop_headers": {"X-Key": value}}):
            assert "s3cr" not in refusal(**given)

    def test_a_login_in_an_address_is_not_shown(self) -> None:
        sentence = refusal(traceloop_backend="otlp", traceloop_base_url="http://me:pa55@tempo:4318")
        assert "pa55" not in sentence and "traceloop_headers" in sentence

    def test_a_taken_port_names_its_owner_and_our_own_does_not_count(self) -> None:
        ports = {"6006": {"pid": 17, "process": "tensorboard", "container": ""}}
        sentence = refusal({"ports": ports}, **WANTED["phoenix"])
        assert "tensorboard (pid 17)" in sentence and "traceloop_phoenix_port" in sentence
        ours = {"6006": {"pid": 18, "process": "docker-proxy", "container": "dify-phoenix-1"}}
        dify = {"containers": [{"name": "dify-phoenix-1", "service": "phoenix"}]}
        assert plan({"ports": ours, "dify": dify}, **WANTED["phoenix"])["refusals"] == []
        assert "dify-phoenix-1" in refusal({"ports": ours}, **WANTED["phoenix"])
        assert plan({"ports": ports}, **WANTED["phoenix elsewhere"])["refusals"] == []


class TestPages:
    def test_one_that_is_the_hosts_own_says_how_to_reach_it(self) -> None:
        found = wanted("phoenix")
        assert found["traces"]["page"] == "http://127.0.0.1:6006" == found["traces"]["url"]
        assert any("Look at http://127.0.0.1:6006" in line for line in found["summary"])
        assert any("ssh -L 6006:127.0.0.1:6006 dify1.example.com" in line for line in found["summary"])

    def test_one_that_is_open_says_so(self) -> None:
        found = wanted("phoenix", traceloop_bind_address="0.0.0.0", traceloop_phoenix_port=6007)
        assert found["traces"]["url"] == "http://127.0.0.1:6007"
        assert found["traces"]["page"] == "http://192.0.2.10:6007", "what people are given is for their browsers"
        assert services(found)["phoenix"]["ports"] == ["0.0.0.0:6007:6006"]
        assert any("without a password" in note for note in found["notes"])

    def test_an_address_of_ipv6(self) -> None:
        found = wanted("lgtm", traceloop_bind_address="fd00::1")
        assert services(found)["lgtm"]["ports"] == ["[fd00::1]:3000:3000"]
        assert any("Look at http://[fd00::1]:3000/" in line for line in found["summary"])
        for address in ("::", "[::]"):
            assert wanted("phoenix", traceloop_bind_address=address)["traces"]["url"] == "http://[::1]:6006"

    def test_grafanas_page_is_the_dashboard(self) -> None:
        (path,) = (ROOT / "roles/traceloop/files/grafana").glob("*.json")
        uid = json.loads(path.read_text())["uid"]
        assert any(f"Look at http://127.0.0.1:3000/d/{uid}" in line for line in wanted("lgtm")["summary"])


def test_the_collectors_own_figures_go_where_the_dashboard_is() -> None:
    for name in ("lgtm", "lgtm elsewhere"):
        (reader,) = config(wanted(name))["service"]["telemetry"]["metrics"]["readers"]
        assert reader["periodic"]["exporter"]["otlp"]["endpoint"] == "http://127.0.0.1:4318/v1/metrics", "itself"
    assert "telemetry" not in config(wanted("otlp"))["service"]
    assert "telemetry" not in config(wanted("lgtm", traceloop_metrics=False))["service"]
