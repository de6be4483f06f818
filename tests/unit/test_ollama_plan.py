# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What role ollama decides, from facts and variables alone; what its templates make of it is in test_ollama_role.py."""

from __future__ import annotations

import copy
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts_ollama as places
from ansible_collections.llmops.stack.plugins.module_utils._guard import files, let_in
from ansible_collections.llmops.stack.plugins.module_utils._ollama_plan import plan
from ansible_collections.llmops.stack.plugins.module_utils._ollama_plan_changes import changes

ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "ollama"
VERSION = "0.17.4"
VARIABLES = {
    **yaml.safe_load((ROLE / "defaults/main.yml").read_text()),
    "ollama_archive_url": f"https://me:pa55@mirror/v{VERSION}",
    "ollama_registry": "",
    "ollama_version": VERSION,
    "host": "node1",
    "engine_expected": False,
}
TEXTS = {
    "unit": "[Unit]\n",
    "dropin": "stamp_@\n",
    "secrets": "",
    "compose": "stamp_@\n",
    "metrics_program": "program\n",
    "metrics_unit": "figures\n",
}
PARTS = (
    *("install", "note", "firewall", "firewall_left", "openings", "configure", "service", "container", "prune"),
    *("metrics", "metrics_left"),
)
NVIDIA = {"vendor": "nvidia", "pci": "0000:01:00.0", "driver": "nvidia", "nodes": ["/dev/nvidia0"], "name": "L4"}
AMD = {"vendor": "amd", "pci": "0000:03:00.0", "driver": "amdgpu", "nodes": ["/dev/kfd"], "name": "MI300X"}
CONTAINER = {"ollama_install": "container"}
Facts = dict[str, Any]


def decided(facts: Facts, **given: Any) -> dict[str, Any]:
    return plan({**VARIABLES, **given}, facts)


def compared(facts: Facts, **given: Any) -> dict[str, Any]:
    return changes(decided(facts, **given), facts, TEXTS)


def to_do(facts: Facts, **given: Any) -> list[str]:
    made = compared(facts, **given)
    parts = [part for part in PARTS if made[part]]
    assert made["any"] is bool(parts)
    return parts


def sha(text: str) -> dict[str, str]:
    return {"sha256": hashlib.sha256(text.encode()).hexdigest()}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    root = tmp_path_factory.mktemp("root")
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n')
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    facts = _stack_facts.StackFacts(root=str(root), run=lambda *a, **k: (127, "")).collect()
    facts["os"].update(arch="amd64", machine="x86_64")
    facts["systemd"] = True
    facts["python"]["requests"] = "2.32.3"
    facts["ollama"]["models_dir"]["realpath"] = facts["ollama"]["models_dir"]["path"]
    return facts


@pytest.fixture
def bare(seen: Facts) -> Facts:
    """Facts of a host on which nothing is."""
    return copy.deepcopy(seen)


@pytest.fixture
def finished(bare: Facts) -> Facts:
    """Facts of a host on which the role has done everything that it wants to do."""
    made = compared(bare)
    ollama = bare["ollama"]
    ollama.update(
        active=True, enabled=True, current=VERSION, server=VERSION, nft=True, zstd=True,
        link="/opt/ollama/current/bin/ollama", running_env={"OLLAMA_LLMOPS_STAMP": made["stamp"]},
        releases={VERSION: {"complete": True, "overlays": [], "checksums": {}}},
    )  # fmt: skip
    ollama["user"]["exists"] = True
    ollama["models_dir"].update(exists=True, owner="ollama")
    guard(bare)
    ollama["unit"].update(exists=True, ours=True, path=places.UNIT)
    ollama["files"][places.UNIT] = sha(made["texts"]["unit"])
    ollama["files"][f"{places.UNIT}.d/{places.DROPIN}"] = sha(made["texts"]["dropin"])
    return bare


def guard(facts: Facts, **given: Any) -> None:
    """Its port as the role guards it."""
    rules = files(decided(facts, **given)["guard"], [11434])
    mark = rules[places.PLACES.rules].partition("chain rules_")[2][:12]
    facts["ollama"]["firewall"].update(table=mark, enabled=True, let_in=let_in(rules[places.PLACES.rules]))
    facts["ollama"]["files"].update({path: sha(text) for path, text in rules.items()})


# -- what there is to do ---------------------------------------------------------


def test_a_finished_host_needs_nothing(finished: Facts) -> None:
    assert decided(finished)["refusals"] == []
    assert to_do(finished) == []
    assert compared(finished)["remarks"] == []


def test_a_bare_host_needs_everything(bare: Facts) -> None:
    assert decided(bare)["refusals"] == []
    assert to_do(bare) == ["install", "firewall", "configure", "service"]
    assert compared(bare)["packages"] == ["zstd", "nftables"]
    assert compared(bare, ollama_version="0.13.5")["packages"] == ["nftables"]
    bare["python"]["requests"] = ""
    assert "python3-requests" in compared(bare)["packages"]


def disable(facts: Facts) -> None:
    facts["ollama"]["firewall"]["enabled"] = False


def flush(facts: Facts) -> None:
    facts["ollama"]["firewall"]["table"] = ""


def reload(facts: Facts) -> None:
    facts["ollama"]["unit"]["reload"] = True


def take_the_user(facts: Facts) -> None:
    facts["ollama"]["user"]["exists"] = False


def give_the_store_to_root(facts: Facts) -> None:
    facts["ollama"]["models_dir"]["owner"] = "root"


def write_a_compose_file(facts: Facts) -> None:
    facts["ollama"]["files"]["/opt/ollama/compose.yaml"] = sha("services")


def lose(path: str) -> Callable[[Facts], None]:
    def change(facts: Facts) -> None:
        facts["ollama"]["files"][path]["sha256"] = ""

    return change


def has(**change: Any) -> Callable[[Facts], None]:
    return lambda facts: facts["ollama"].update(change)


@pytest.mark.parametrize(
    ("change", "parts", "restart"),
    [
        (has(active=False), ["service"], True),
        (has(server="0.13.5"), ["service"], True),
        (has(running_env={}), ["service"], True),
        (has(running_env={"OLLAMA_LLMOPS_STAMP": "0" * 12}), ["service"], True),
        (has(enabled=False), ["service"], False),
        (has(current="0.13.5"), ["note", "service"], False),
        (has(link=""), ["note", "service"], False),
        (reload, ["service"], False),
        (flush, ["firewall"], False),
        (disable, ["firewall"], False),
        (take_the_user, ["install"], False),
        (give_the_store_to_root, ["install"], False),
        (write_a_compose_file, ["install"], False),
        (lose(places.UNIT), ["install", "note", "configure", "service"], True),
        (lose(f"{places.UNIT}.d/{places.DROPIN}"), ["note", "configure", "service"], True),
        *((lose(path), ["firewall"], False) for path in places.PLACES),
    ],
)
def test_what_a_difference_costs(
    finished: Facts, change: Callable[[Facts], None], parts: list[str], restart: bool
) -> None:
    change(finished)
    assert to_do(finished) == parts
    assert compared(finished)["restart"] is restart


def test_a_login_that_is_not_written_yet_is(finished: Facts) -> None:
    proxy = {"ollama_https_proxy": "http://me:pa55@proxy:3128"}
    wanted = decided(finished, **proxy)
    assert wanted["secrets"] == {"HTTPS_PROXY": proxy["ollama_https_proxy"]}
    assert "pa55" not in str((wanted["environment"], wanted["product"], wanted["refusals"], wanted["warnings"]))
    assert compared(finished, **proxy)["secrets"] is True
    finished["ollama"]["files"][places.SECRETS] = sha(TEXTS["secrets"])
    assert compared(finished, **proxy)["secrets"] is False
    assert compared(finished, **proxy)["restart"] is True, "the stamp is of all settings"


def test_pins_are_compared_and_those_of_other_hosts_ignored(finished: Facts) -> None:
    name = "ollama-linux-amd64.tar.zst"
    finished["ollama"]["releases"][VERSION]["checksums"] = {name: "ab" * 32}
    pins = {name: "SHA256:" + "AB" * 32, "ollama-linux-arm64.tar.zst": "cd" * 32}
    assert compared(finished, ollama_checksums=pins)["release_ready"] is True
    assert compared(finished, ollama_checksums={name: "ff" * 32})["release_ready"] is False
    assert compared(finished, ollama_overlays=["rocm"])["release_ready"] is False


def test_old_versions_are_removed_when_there_are_too_many(finished: Facts) -> None:
    finished["ollama"]["releases"].update({"0.13.5": {}, "0.16.0": {}})
    assert compared(finished)["prune"] is False
    assert compared(finished, ollama_version="0.18.0")["prune"] is True
    assert compared(finished, ollama_keep=1)["prune"] is True


def test_who_came_before_the_gateway_is_shut_out_last(finished: Facts) -> None:
    before = {"ollama_allow": ["10.0.0.0/24"]}
    now = {**before, "ollama_gateways": ["10.0.0.9"]}
    guard(finished, **before)
    assert decided(finished, ollama_leave_open=True)["left_open"] == [], (
        "without a gateway, what is written holds at once"
    )
    first = decided(finished, **now, ollama_leave_open=True)
    assert first["guard"]["let_in"] == {"addresses": ["10.0.0.9", "10.0.0.0/24"], "interfaces": ["docker0", "br-*"]}
    assert first["left_open"] == ["10.0.0.0/24", "docker0", "br-*"]
    assert first["warnings"][0].startswith("10.0.0.0/24, docker0, br-* may go on asking Ollama here until")
    guard(finished, **now, ollama_leave_open=True)
    assert to_do(finished, **now, ollama_leave_open=True) == []
    assert decided(finished, **now, ollama_leave_open=True)["left_open"] == first["left_open"]
    last = decided(finished, **now)
    assert (last["guard"]["let_in"]["addresses"], last["left_open"], last["warnings"]) == (["10.0.0.9"], [], [])
    assert to_do(finished, **now) == ["firewall"]
    guard(finished, **now)
    assert to_do(finished, **now, ollama_leave_open=True) == []


def test_other_firewalls_let_the_same_sources_in(finished: Facts) -> None:
    finished["ollama"]["firewall"].update(ufw=True, firewalld=False)
    assert to_do(finished) == ["openings"]
    assert compared(finished)["differs"] is False, "only they know, so they are told in every run"
    assert compared(finished, ollama_allow=["10.0.0.1"])["differs"] is True
    made = compared(finished, ollama_allow=["10.0.0.1"])
    assert list(made["openings_wanted"]) == ["ufw"]
    assert made["openings_wanted"]["ufw"][0] == "from 10.0.0.1 to any port 11434 proto tcp"
    made = compared(finished, ollama_firewall="none")
    assert (made["openings"], made["firewall_left"], made["openings_wanted"]) == (True, True, {"ufw": []})
    for path in places.PLACES:
        finished["ollama"]["files"][path] = {"sha256": ""}
    assert to_do(finished, ollama_firewall="none") == [], "nothing of ours is here any more"


# -- what is wanted ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "gpu", "given", "kind", "overlays", "tag"),
    [
        ([], {}, {}, "cpu", [], VERSION),
        ([NVIDIA], {}, {}, "nvidia", [], VERSION),
        ([{**NVIDIA, "driver": ""}], {}, {}, "cpu", [], VERSION),
        ([AMD], {"kfd": True}, {}, "amd", ["rocm"], f"{VERSION}-rocm"),
        ([AMD], {"kfd": False}, {}, "cpu", [], VERSION),
        ([NVIDIA, AMD], {"kfd": True}, {}, "nvidia", [], VERSION),
        ([NVIDIA], {}, {"ollama_gpu": "cpu"}, "cpu", [], VERSION),
        ([], {"jetpack": "6"}, {}, "nvidia", ["jetpack6"], VERSION),
        ([AMD], {"kfd": True}, {"ollama_overlays": []}, "amd", [], f"{VERSION}-rocm"),
    ],
)
def test_the_gpu_decides_what_is_fetched(
    bare: Facts, gpus: Any, gpu: Any, given: Any, kind: str, overlays: list[str], tag: str
) -> None:
    bare["gpus"] = gpus
    bare["gpu"].update({**gpu, "render_group": 105})
    wanted = decided(bare, **given)
    assert (wanted["gpu"], wanted["overlays"], wanted["image"]) == (kind, overlays, f"ollama/ollama:{tag}")
    assert wanted["render_group"] == (105 if kind == "amd" else -1)


@pytest.mark.parametrize(
    ("given", "bind", "url"),
    [
        ({}, "0.0.0.0", "http://127.0.0.1:11434"),
        ({"ollama_containers": False}, "127.0.0.1", "http://127.0.0.1:11434"),
        ({"ollama_containers": False, "ollama_allow": ["10.0.0.1"]}, "0.0.0.0", "http://127.0.0.1:11434"),
        ({"ollama_bind": "10.0.0.5", "ollama_port": 8080}, "10.0.0.5", "http://10.0.0.5:8080"),
        ({"ollama_bind": "::"}, "[::]", "http://127.0.0.1:11434"),
    ],
    ids=str,
)
def test_where_it_listens_and_is_asked(bare: Facts, given: dict[str, Any], bind: str, url: str) -> None:
    wanted = decided(bare, **given)
    assert (wanted["bind"], wanted["url"], wanted["firewall_wanted"]) == (bind, url, bind != "127.0.0.1")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"ollama_keep_alive": "5 minutes"}, "ollama_keep_alive"),
        ({"ollama_port": 99999}, "ollama_port"),
        ({"ollama_bind": "http://0.0.0.0"}, "ollama_bind"),
        ({"ollama_allow": ["nas.local"]}, "nas.local"),
        ({"ollama_allow": "10.0.0.1"}, "which is no list"),
        ({"ollama_home": "/home/me/ollama"}, "ProtectHome"),
        ({"ollama_home": "/opt/my ollama"}, "ollama_home"),
        ({"ollama_user": "root"}, "root"),
        ({"ollama_user": "-rf"}, "ollama_user"),
        ({"ollama_user": "me:0"}, "ollama_user"),
        ({"ollama_models_dir": "/srv/my models"}, "ollama_models_dir"),
        ({"ollama_models_dir": "/srv/models\n"}, "ollama_models_dir"),
        ({"ollama_models_dir": 5}, "ollama_models_dir"),
        ({"ollama_container_interfaces": ['docker0" accept; #']}, "ollama_container_interfaces"),
        ({"ollama_models": ["llama3:8b@sha256:ab"]}, "ollama_models"),
        ({"ollama_registry": "http://mirror/below"}, "ollama_registry"),
        ({"ollama_bundle": "models"}, "ollama_bundle"),
        ({"ollama_keep": -1}, "ollama_keep"),
        ({"ollama_checksums": {"ollama-linux-amd64.tar.zst": "12"}}, "ollama_checksums"),
        ({"ollama_version": "0.4.9"}, "0.5.0"),
        ({"ollama_version": "next"}, "ollama_version"),
        ({"ollama_gpu": "nvidia"}, "ollama_gpu"),
    ],
    ids=str,
)
def test_refusals(bare: Facts, given: dict[str, Any], word: str) -> None:
    assert word in " ".join(decided(bare, **given)["refusals"])


def test_a_masked_unit_is_refused(bare: Facts) -> None:
    bare["ollama"]["unit"].update(exists=True, masked=True)
    (sentence,) = decided(bare)["refusals"]
    assert "unmask" in sentence
    assert decided(bare, **CONTAINER)["refusals"] == []


@pytest.mark.parametrize(
    ("writable", "closed"),
    [
        (["/"], []),
        (["/usr/share/ollama", "/srv/models/"], []),
        (["/usr/share/ollama", "/srv"], []),
        (["/usr/share/ollama", "/srv/mod"], ["/srv/models"]),
        ([], ["/usr/share/ollama", "/srv/models"]),
    ],
)
def test_an_edited_unit_has_to_let_the_service_write(finished: Facts, writable: list[str], closed: list[str]) -> None:
    finished["ollama"]["unit"].update(edited=True, guarded=True, writable=writable)
    finished["ollama"]["models_dir"].update(path="/srv/models", realpath="/srv/models")
    said = decided(finished, ollama_models_dir="/srv/models")["refusals"]
    assert [f"not to {', '.join(closed)}." in sentence for sentence in said] == [True] * bool(closed)
    assert decided(finished, ollama_models_dir="/srv/models", ollama_unit_replace=True)["refusals"] == []


def test_what_is_said_about_a_host(finished: Facts) -> None:
    finished["ollama"]["unit"].update(edited=True, guarded=True, writable=["/"], pending=["OLLAMA_DEBUG"])
    finished["ollama"]["dropins"] = ["override.conf"]
    said = compared(finished)["remarks"]
    for sentence, word in zip(said, ("edited by hand", "override.conf", "OLLAMA_DEBUG")):
        assert sentence.startswith("node1: ") and word in sentence
    assert len(said) == 3
    finished["ollama"]["enabled"] = False
    assert "OLLAMA_DEBUG" not in " ".join(compared(finished)["remarks"]), "it is started anyhow"
    finished["ollama"]["unit"]["guarded"] = False
    assert "guards port 11434" in compared(finished, ollama_firewall="none")["remarks"][-1]


# -- in a container -------------------------------------------------------------------


def test_a_container_that_is_as_it_should_be(bare: Facts) -> None:
    bare["engine"]["running"] = True
    bare["compose"]["version"] = "2.40.3"
    made = compared(bare, **CONTAINER)
    ollama = bare["ollama"]
    running = {
        "name": "llmops-ollama-ollama-1", "running": True, "image": f"ollama/ollama:{VERSION}", "stamp": made["stamp"]
    }  # fmt: skip
    ollama.update(nft=True, server=VERSION, container=running)
    ollama["models_dir"].update(exists=True, owner="root")
    guard(bare)
    assert to_do(bare, **CONTAINER) == ["container"]
    ollama["files"]["/opt/ollama/compose.yaml"] = sha(made["texts"]["compose"])
    assert to_do(bare, **CONTAINER) == []
    assert decided(bare, **CONTAINER, engine_expected=True)["refusals"] == []
    assert to_do(bare, **CONTAINER, ollama_version="0.18.0") == ["container"]
    for change in ({"running": False}, {"stamp": "0" * 12}, {"image": "ollama/ollama:0.13.5"}):
        ollama["container"] = {**running, **change}
        assert to_do(bare, **CONTAINER) == ["container"], change


def test_engine_and_toolkit_are_missed_only_where_they_should_be_there(bare: Facts) -> None:
    """site.yml looks before the role docker brings them, also where an engine runs already."""
    assert decided(bare, **CONTAINER)["refusals"] == []
    assert "Docker Engine" in decided(bare, **CONTAINER, engine_expected=True)["refusals"][0]
    bare["engine"]["running"] = True
    bare["compose"]["version"] = "2.40.3"
    bare["gpus"] = [NVIDIA]
    bare["gpu"].update(nvidia_driver="580.95.05", uvm=True)
    assert decided(bare, **CONTAINER, ollama_gpu="nvidia")["refusals"] == []
    (sentence,) = decided(bare, **CONTAINER, ollama_gpu="nvidia", engine_expected=True)["refusals"]
    assert "Toolkit" in sentence


def test_a_server_that_the_look_did_not_hear_may_have_calls(bare: Facts) -> None:
    """One at another port than the wanted one, or too busy to answer within a second."""
    assert compared(bare)["serves"] is False
    for part, key, value in (("", "server", VERSION), ("", "active", True), ("container", "running", True)):
        found = copy.deepcopy(bare)
        (found["ollama"][part] if part else found["ollama"])[key] = value
        assert compared(found)["serves"] is True
        assert compared(found, **CONTAINER)["serves"] is True


# -- the way back -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "image", "previous"),
    [
        (True, "ollama/ollama:0.13.5-rocm", "0.13.5"),
        (True, "mirror:5000/ollama/ollama:0.30.0-rc1", "0.30.0-rc1"),
        (True, "sha256:0123", ""),
        (False, "ollama/ollama:0.13.5", ""),
    ],
)
def test_what_a_container_served_before(bare: Facts, running: bool, image: str, previous: str) -> None:
    """At another port than the wanted one nobody asks it."""
    bare["ollama"]["container"].update(running=running, image=image)
    assert compared(bare, **CONTAINER)["previous"] == previous
    bare["ollama"]["server"] = VERSION
    assert compared(bare, **CONTAINER)["previous"] == VERSION


def test_where_nothing_served_nothing_is_noted(bare: Facts, seen: Facts) -> None:
    assert compared(bare)["note"] is False
    bare["ollama"].update(server=VERSION, current=VERSION)
    assert compared(bare)["note"] is True
    assert compared(bare, **CONTAINER)["note"] is False
    assert seen["ollama"]["server"] == ""


def test_a_run_that_was_ended_is_taken_up(finished: Facts) -> None:
    """Killed at any place: as far as anybody can see, all may be as it should be."""
    noted = {"version": "0.13.5", "current": "0.13.5", "url": "http://127.0.0.1:11500", "files": [places.UNIT]}
    finished["ollama"]["way_back"] = noted
    made = compared(finished)
    assert (made["note"], made["noted"], made["previous"]) == (False, noted, "0.13.5"), "what served then counts"
    assert (made["service"], made["restart"], made["any"]) == (True, False, True)


def test_the_link_may_have_been_switched_already(finished: Facts) -> None:
    finished["ollama"]["server"] = "0.13.5"
    finished["ollama"]["releases"]["0.13.5"] = {"complete": True, "overlays": [], "checksums": {}}
    assert compared(finished)["noted"]["current"] == "0.13.5"
    finished["ollama"]["releases"]["0.13.5"]["complete"] = False
    assert compared(finished)["noted"]["current"] == VERSION


@pytest.mark.parametrize("place", ["running", "files"])
@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0:11500", "http://127.0.0.1:11500"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":8080", "http://127.0.0.1:8080"),
        ("http://0.0.0.0", "http://127.0.0.1:80"),
        ("https://ai.internal/", "http://ai.internal:443"),
        ("10.0.0.5:11434", "http://10.0.0.5:11434"),
        ("[::]:11434", "http://127.0.0.1:11434"),
        ("[fd00::7]:11435", "http://[fd00::7]:11435"),
        ("", "http://127.0.0.1:11434"),
    ],
)
def test_the_one_before_is_asked_where_it_was(finished: Facts, place: str, host: str, url: str) -> None:
    """One that does not run says it in its files."""
    finished["ollama"]["running_env"] = {"OLLAMA_HOST": host if place == "running" else ""}
    finished["ollama"]["unit"]["environment"] = {"OLLAMA_HOST": host} if place == "files" else {}
    assert compared(finished, ollama_port=9999)["noted"]["url"] == url


# -- figures ---------------------------------------------------------------------

FIGURES = {"ollama_metrics": True}
FIGURES_FILES = {"metrics_program": "/opt/ollama/ollama-metrics.py", "metrics_unit": places.METRICS_UNIT}


@pytest.fixture
def served(finished: Facts) -> Facts:
    """Facts of a finished host that serves its figures."""
    finished["ollama"]["files"].update({path: sha(TEXTS[name]) for name, path in FIGURES_FILES.items()})
    finished["ollama"]["metrics"] = {"active": True, "enabled": True}
    return finished


def test_figures_that_are_served_need_nothing(served: Facts) -> None:
    assert to_do(served, **FIGURES) == []


def test_figures_are_served_where_they_are_wanted(finished: Facts) -> None:
    assert to_do(finished, **FIGURES) == ["metrics"]


@pytest.mark.parametrize("name", FIGURES_FILES)
def test_figures_of_another_version_are_replaced(served: Facts, name: str) -> None:
    served["ollama"]["files"][FIGURES_FILES[name]] = sha("another\n")
    assert to_do(served, **FIGURES) == ["metrics"]


@pytest.mark.parametrize("state", ["active", "enabled"])
def test_figures_that_stopped_are_started(served: Facts, state: str) -> None:
    served["ollama"]["metrics"][state] = False
    assert to_do(served, **FIGURES) == ["metrics"]


def test_figures_go_when_they_are_not_wanted_any_more(served: Facts) -> None:
    assert to_do(served) == ["metrics_left"]
    served["ollama"]["files"][FIGURES_FILES["metrics_unit"]]["sha256"] = ""  # a run that was ended in between
    assert to_do(served) == ["metrics_left"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ollama_metrics_port": 11434}, "where Ollama itself listens"),
        ({"ollama_metrics_bind": "eth0"}, "which is no address"),
    ],
)
def test_figures_that_cannot_be_served_are_refused(bare: Facts, given: dict[str, Any], says: str) -> None:
    (refusal,) = decided(bare, **FIGURES, **given)["refusals"]
    assert says in refusal
    assert decided(bare, **given)["refusals"] == []


NOBODY = {"pid": 0, "process": "", "container": "", "unit": ""}


@pytest.mark.parametrize(
    ("owner", "who"),
    [
        ({"pid": 7, "process": "nginx", "unit": "nginx.service"}, "nginx (pid 7)"),
        ({"container": "exporter"}, "the container exporter"),
        ({}, "a process"),
    ],
)
def test_a_port_of_somebody_else_is_no_place_for_figures(bare: Facts, owner: dict[str, Any], who: str) -> None:
    bare["ports"]["11435"] = {**NOBODY, **owner}
    (refusal,) = decided(bare, **FIGURES)["refusals"]
    assert f"Port 11435, where the figures of Ollama are to be served, is taken by {who}." in refusal
    assert decided(bare)["refusals"] == decided(bare, **FIGURES, ollama_metrics_port=9101)["refusals"] == []


def test_figures_keep_their_own_port(served: Facts) -> None:
    for owner in ({"pid": 9, "process": "python3", "unit": "ollama-metrics.service"}, {}):
        served["ports"]["11435"] = {**NOBODY, **owner}
        assert decided(served, **FIGURES)["refusals"] == []
