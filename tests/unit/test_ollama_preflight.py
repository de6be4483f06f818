# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in the way of Ollama: each cause gives its one sentence, with what was found and the next step."""

from __future__ import annotations

import copy
import pathlib
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_preflight_gpu as graphics
from ansible_collections.llmops.stack.plugins.module_utils._ollama_preflight import refusals, warnings
from ansible_collections.llmops.stack.tests.unit.machine import Machine

STORE = "/usr/share/ollama/.ollama/models"
FACTS: dict[str, Any] = {
    "os": {"arch": "amd64"},
    "memory": {"total_mb": 16000},
    "systemd": True,
    "disks": {"/opt/ollama": {"mount": "/", "free_mb": 50000}, "/var/lib/docker": {"mount": "/data", "free_mb": 500}},
    "engine": {"running": True, "runtimes": ["runc"], "packages": {}},
    "compose": {"version": "2.40.3"},
    "ports": {},
    "gpus": [],
    "gpu": {"nvidia_smi": {"found": False, "rc": -1, "error": ""}, "jetpack": "", "render_group": -1},
    "ollama": {
        "home": "/opt/ollama", "version": "", "server": "", "active": False, "pid": 0, "releases": {}, "dropins": [],
        "user": {"name": "ollama", "exists": False, "uid": -1},
        "unit": {"exists": False, "ours": False, "models_dir": "", "has_models": False, "overrides": {},
                 "overridden_in": {}},
        "models_dir": {"path": STORE, "realpath": STORE, "exists": False, "blocked": ""},
        "container": {"name": "", "running": False, "image": ""},
    },
}  # fmt: skip
WANTED = {
    "version": "0.32.15", "install": "native", "home": "/opt/ollama", "models_dir": STORE, "user": "ollama",
    "port": 11434, "gpu": "auto", "overlays": [], "allow": ["10.0.0.0/24", "192.168.1.7", "fd00::/64"],
    "min_disk_mb": 8000, "models": ["deepseek-r1:1.5b", "hf.co/unsloth/tiny:Q4_K_M"], "registry": "http://mirror:8080/",
    "bundle": "/srv/bundle", "keep": 0, "checksums": {"ollama-linux-amd64.tgz": "sha256:" + "0aF4" * 16},
}  # fmt: skip


def facts(**changes: Any) -> dict[str, Any]:
    """The good host, with changes; those in dictionaries go one level deep."""
    made = copy.deepcopy(FACTS)
    for key, value in changes.items():
        made[key] = {**made[key], **value} if isinstance(value, dict) else value
    return made


def ollama(**changes: Any) -> dict[str, Any]:
    base = FACTS["ollama"]
    deep = {key: {**base[key], **value} if isinstance(value, dict) else value for key, value in changes.items()}
    return facts(ollama=deep)


def wanted(**changes: Any) -> dict[str, Any]:
    return {**WANTED, **changes}


def one(seen: dict[str, Any], asked: dict[str, Any] | None = None) -> str:
    (sentence,) = refusals(seen, asked or WANTED)
    return sentence


def test_a_good_host_is_not_refused() -> None:
    assert refusals(FACTS, WANTED) == []
    assert refusals(FACTS, {"version": "0.32.15", "install": "native"}) == []
    assert warnings(FACTS, WANTED) == []


def test_what_stack_facts_returns_fits(tmp_path: pathlib.Path) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert refusals(machine.facts(), wanted(min_disk_mb=0)) == []
    assert warnings(machine.facts(), WANTED) == []


# -- version and host ----------------------------------------------------------


@pytest.mark.parametrize("version", ["v0.32.15", "latest", "0.32", ""])
def test_versions_that_are_none(version: str) -> None:
    assert "ollama_version" in one(FACTS, wanted(version=version, overlays=["mlx"]))


def test_versions_that_are_too_old() -> None:
    assert "older than 0.5.0" in one(FACTS, wanted(version="0.3.14"))
    assert refusals(FACTS, wanted(version="0.5.0")) == []


def test_an_older_version_goes_ahead_and_is_said() -> None:
    seen = ollama(server="0.32.15", version="0.32.15")
    assert refusals(seen, wanted(version="0.17.4")) == []
    (sentence,) = warnings(seen, wanted(version="0.17.4"))
    assert "0.17.4 is older than the 0.32.15" in sentence
    assert warnings(ollama(server="0.17.4"), WANTED) == []
    assert warnings(ollama(server="custom build"), WANTED) == []


def test_architectures_and_their_overlays() -> None:
    assert "riscv64" in one(facts(os={"arch": "riscv64"}))
    assert "arm64" in one(FACTS, wanted(overlays=["jetpack6"]))
    assert refusals(facts(os={"arch": "arm64"}), wanted(overlays=["jetpack6"])) == []


def test_a_native_service_needs_systemd() -> None:
    assert "ollama_install: container" in one(facts(systemd=False))
    assert refusals(facts(systemd=False), wanted(install="container", min_disk_mb=0)) == []


# -- container -----------------------------------------------------------------


def test_a_container_needs_engine_and_compose() -> None:
    asked = wanted(install="container", min_disk_mb=0)
    sentence = one(facts(engine={"running": False, "error": "nothing listens"}), asked)
    assert "nothing listens" in sentence and "llmops.stack.docker" in sentence
    assert "llmops.stack.compose" in one(facts(compose={"version": ""}), asked)
    bare = facts(engine={"running": False}, compose={"version": ""})
    assert refusals(bare, {**asked, "engine_expected": False}) == []


def test_both_at_once_want_the_same_port() -> None:
    asked = wanted(install="container", min_disk_mb=0)
    assert "systemctl disable --now ollama" in one(ollama(active=True, unit={"models_dir": "/srv/m"}), asked)
    running = ollama(container={"name": "ollama-ollama-1", "running": True})
    assert "docker compose -f /opt/ollama/compose.yaml down" in one(running)
    assert refusals(running, asked) == []


# -- the store -----------------------------------------------------------------


def test_models_of_an_install_that_is_not_ours() -> None:
    foreign = {"exists": True, "ours": False, "models_dir": "/data/models", "has_models": True}
    assert "Set ollama_models_dir: /data/models" in one(ollama(unit=foreign))
    assert refusals(ollama(unit=foreign), wanted(models_dir="/data/models/")) == []
    assert refusals(ollama(unit={**foreign, "has_models": False}), WANTED) == []
    assert refusals(ollama(unit={**foreign, "ours": True}), WANTED) == []


@pytest.mark.parametrize("path", ["/home/ann/models", "/root/models", "/root"])
def test_a_store_that_the_service_would_not_see(path: str) -> None:
    assert "ProtectHome" in one(FACTS, wanted(models_dir=path))
    assert refusals(FACTS, wanted(models_dir="/homes/models")) == []
    assert refusals(FACTS, wanted(models_dir=path, install="container", min_disk_mb=0)) == []


def test_a_store_that_the_user_cannot_reach() -> None:
    seen = ollama(models_dir={"path": "/srv/big/models", "blocked": "/srv/big"})
    sentence = one(seen, wanted(models_dir="/srv/big/models"))
    assert "user ollama may not pass through /srv/big" in sentence and "chmod o+x /srv/big" in sentence
    assert refusals(seen, WANTED) == []  # the facts are of another store


def test_a_store_that_leads_where_the_service_sees_nothing() -> None:
    seen = ollama(models_dir={"path": "/srv/models", "realpath": "/home/ann/models"})
    assert "/srv/models, which leads to /home/ann/models" in one(seen, wanted(models_dir="/srv/models"))


def test_our_own_models_that_a_new_place_leaves_behind() -> None:
    unit = {"exists": True, "ours": True, "models_dir": "/srv/old", "has_models": True}
    seen = ollama(unit=unit, models_dir={"path": "/data/new", "realpath": "/data/new", "exists": False})
    asked = wanted(models_dir="/data/new")
    assert refusals(seen, asked) == []
    (remark,) = warnings(seen, asked)
    assert "stay in /srv/old" in remark and remark.endswith("mkdir -p /data && mv /srv/old /data/new")
    there = ollama(unit=unit, models_dir={"path": "/data/new", "realpath": "/data/new", "exists": True})
    assert "cp -a /srv/old/. /data/new/ && rm -r /srv/old" in warnings(there, asked)[0]
    assert warnings(seen, wanted(models_dir="/srv/old/")) == warnings(seen, wanted(install="container")) == []
    linked = ollama(unit=unit, models_dir={"path": "/data/new", "realpath": "/srv/old", "exists": True})
    assert warnings(linked, asked) == []
    assert warnings(ollama(unit={**unit, "has_models": False}), asked) == []


# -- the port ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        ({"pid": 9, "process": "nginx", "container": "", "unit": "nginx.service"}, "nginx (pid 9)"),
        ({"pid": 9, "process": "ollama", "container": "", "unit": ""}, "the service does not know (pid 9)"),
        ({"pid": 9, "process": "docker-proxy", "container": "other", "unit": ""}, "docker stop other"),
        ({"pid": 0, "process": "", "container": "", "unit": ""}, "a process (pid unknown)"),
    ],
)
def test_a_port_that_somebody_else_has(owner: dict[str, Any], words: str) -> None:
    sentence = one(facts(ports={"11434": owner}))
    assert "Port 11434 is taken" in sentence and words in sentence and "ollama_port" in sentence
    assert refusals(facts(ports={"8080": owner}), WANTED) == []


@pytest.mark.parametrize(
    ("owner", "change"),
    [
        ({"pid": 812, "process": "ollama", "unit": "ollama.service"}, {"active": True}),
        ({"pid": 812, "process": "python3", "unit": ""}, {"active": True, "pid": 812}),
        ({"pid": 0, "process": ""}, {"active": True}),  # looked at without root
    ],
)
def test_a_port_of_ours(owner: dict[str, Any], change: dict[str, Any]) -> None:
    assert refusals({**ollama(**change), "ports": {"11434": owner}}, WANTED) == []


def test_a_port_of_our_container() -> None:
    seen = ollama(container={"name": "ollama-ollama-1", "running": True, "image": "ollama/ollama:0.32.15"})
    seen["ports"] = {"11434": {"pid": 77, "process": "ollama", "container": "ollama-ollama-1", "unit": ""}}
    assert refusals(seen, wanted(install="container")) == []
    seen["ports"]["11434"]["container"] = "another"
    assert "the container another" in one(seen, wanted(install="container"))


# -- room ----------------------------------------------------------------------


def test_disk_is_asked_for_only_by_what_is_still_to_come() -> None:
    full = {"/opt/ollama": {"mount": "/opt", "free_mb": 900}}
    assert "/opt/ollama (on /opt) has 900 MB free" in one(facts(disks=full))
    there = ollama(releases={"0.32.15": {"complete": True}})
    assert refusals({**there, "disks": full}, WANTED) == []
    assert "/var/lib/docker (on /data) has 500 MB" in one(FACTS, wanted(install="container"))
    assert refusals(ollama(container={"image": "ollama/ollama:0.32.15-rocm"}), wanted(install="container")) == []


# -- the variables themselves --------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("node2", "no address or network"),
        ("10.0.0.300", "no address or network"),
        ("", "no address or network"),
        ("0.0.0.0/0", "everybody"),
        ("::/0", "ollama_firewall: none"),
        ("10.0.0.7/24", "Write 10.0.0.0/24"),
    ],
)
def test_sources_that_are_refused(entry: str, words: str) -> None:
    sentence = one(FACTS, wanted(allow=["10.0.0.1", entry]))
    assert "ollama_allow" in sentence and words in sentence


@pytest.mark.parametrize("variable", ["allow", "models"])
def test_what_is_no_list(variable: str) -> None:
    sentence = one(FACTS, wanted(**{variable: "10.0.0.0"}))
    assert sentence.startswith(f"ollama_{variable} is '10.0.0.0', which is no list")


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("root", "shall not run as root"),
        ("Ollama", "no name of an account"),
        ("ollama svc", "no name of an account"),
        ("-r", "no name of an account"),
        ("1000", "no name of an account"),
        ("ollama\n", "no name of an account"),
        ("a" * 33, "no name of an account"),
    ],
)
def test_users_that_the_service_is_not_run_as(user: str, words: str) -> None:
    sentence = one(FACTS, wanted(user=user))
    assert sentence.startswith("ollama_user is ") and words in sentence
    assert refusals(FACTS, wanted(user=user, install="container", min_disk_mb=0)) == []  # nobody uses it there
    assert refusals(FACTS, wanted(user="_llm-1")) == []


def test_root_under_another_name() -> None:
    seen = ollama(user={"name": "toor", "exists": True, "uid": 0})
    assert "another name of root" in one(seen, wanted(user="toor"))
    assert refusals(seen, WANTED) == []  # the facts are of another user


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": ["llama3@sha256:0011"]}, "cannot pin a digest"),
        ({"models": ["a/b/c/d"]}, "more parts than"),
        ({"models": ["llama 3"]}, "cannot be its model"),
        ({"models": [""]}, "no name of a model"),
        ({"models": ["gpt-oss:120b-cloud"]}, "runs at ollama.com"),
        ({"registry": "http://mirror/ollama"}, "has no path and no login"),
        ({"registry": "mirror/"}, ""),
        ({"registry": "https://mirror:443"}, ""),
        ({"registry": "ftp://mirror"}, "Write host[:port]"),
        ({"bundle": "bundle/models"}, "absolute path"),
        ({"bundle": "~/models"}, "absolute path"),
        ({"bundle": ""}, ""),
        ({"keep": -1}, "0 or more"),
        ({"keep": "two"}, "0 or more"),
        ({"keep": "2"}, ""),
        ({"keep": None}, ""),
        ({"checksums": {"ollama-linux-amd64.tgz": "md5:" + "0" * 64}}, "which is no sha256"),
        ({"checksums": {"ollama-linux-amd64.tgz": "0" * 63}}, "for ollama-linux-amd64.tgz"),
        ({"checksums": ["0" * 64]}, "no dictionary"),
    ],
)
def test_values_that_would_fail_only_when_they_are_used(change: dict[str, Any], words: str) -> None:
    if words:
        (name,) = change
        sentence = one(FACTS, wanted(**change))
        assert sentence.startswith(f"ollama_{name}") and words in sentence
    else:
        assert refusals(FACTS, wanted(**change)) == []


@pytest.mark.parametrize(
    "registry", ["http://me:pa55@mirror:8080", "me:pa55@mirror:8080", "http://me:pa55@word@mirror"]
)
def test_a_login_is_not_repeated(registry: str) -> None:
    sentence = one(FACTS, wanted(registry=registry))
    assert "no login" in sentence and "***@mirror" in sentence
    assert "pa55" not in sentence and "word@" not in sentence


# -- GPUs ----------------------------------------------------------------------

CARD = {"vendor": "nvidia", "driver": "nvidia", "driver_version": "570.86"}
WORKS = {"nvidia_smi": {"found": True, "rc": 0, "error": ""}, "nvidia_driver": "570.86", "uvm": True}
AMD = {"vendor": "amd", "driver": "amdgpu", "driver_version": ""}
AMD_WORKS = {"kfd": True, "kfd_nodes": 1, "render_group": 104}
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"


@pytest.mark.parametrize(
    ("vendor", "cards", "gpu", "words"),
    [
        ("nvidia", [], {}, "no GPU of NVIDIA"),
        ("nvidia", [AMD], AMD_WORKS, "no GPU of NVIDIA"),
        ("nvidia", [{**CARD, "driver": "nouveau"}], {}, "has bound: nouveau"),
        ("nvidia", [{**CARD, "driver": ""}], {}, "has bound: none"),
        ("nvidia", [CARD], {**WORKS, "nvidia_smi": {"found": True, "rc": 18, "error": MISMATCH}}, "Reboot the host"),
        ("nvidia", [CARD], {**WORKS, "nvidia_smi": {"found": True, "rc": 9, "error": "No devices"}}, "No devices."),
        ("nvidia", [CARD], {**WORKS, "uvm": False}, "modprobe nvidia-uvm"),
        ("nvidia", [CARD], {**WORKS, "nvidia_driver": "535.183"}, "older than 550"),
        ("amd", [AMD], {"kfd": False}, "/dev/kfd is missing"),
        ("amd", [{**AMD, "driver": "radeon"}], AMD_WORKS, "has bound: radeon"),
        ("amd", [AMD], {**AMD_WORKS, "kfd_nodes": 0}, "knows no GPU"),
        ("amd", [AMD], {**AMD_WORKS, "render_group": -1}, "groupadd --system render"),
    ],
)
def test_a_gpu_that_was_asked_for_and_would_not_be_used(vendor: str, cards: Any, gpu: Any, words: str) -> None:
    seen = facts(gpus=cards, gpu=gpu)
    sentence = one(seen, wanted(gpu=vendor))
    assert sentence.startswith(f"ollama_gpu is {vendor}, and ") and words in sentence
    assert refusals(seen, WANTED) == refusals(seen, wanted(gpu="cpu")) == []
    if {card["vendor"] for card in cards} == {vendor}:  # with auto it is worth a word
        (remark,) = warnings(seen, WANTED)
        assert remark.startswith("Ollama will not use the GPU that is here") and words in remark
    assert warnings(seen, wanted(gpu="cpu")) == []


def test_gpus_that_work() -> None:
    assert refusals(facts(gpus=[CARD], gpu=WORKS), wanted(gpu="nvidia")) == []
    assert refusals(facts(gpus=[AMD], gpu=AMD_WORKS), wanted(gpu="amd")) == []
    old = {**WORKS, "nvidia_driver": "535.183"}
    assert refusals(facts(gpus=[CARD], gpu=old), wanted(gpu="nvidia", version="0.17.4")) == []
    assert refusals(facts(gpu={"jetpack": "6"}), wanted(gpu="nvidia")) == []  # on no bus, and no nvidia-smi to ask
    # A container may have the tool and the devices without /proc/driver.
    assert refusals(facts(gpus=[CARD], gpu={**WORKS, "nvidia_driver": ""}), wanted(gpu="nvidia")) == []


def test_a_vendor_that_is_none() -> None:
    assert "Write one of auto, nvidia, amd, cpu" in one(FACTS, wanted(gpu="intel"))


def test_a_container_needs_the_toolkit() -> None:
    asked = wanted(install="container", gpu="nvidia", min_disk_mb=0)
    seen = facts(gpus=[CARD], gpu=WORKS)
    assert "docker_nvidia: true" in one(seen, asked)
    assert refusals(seen, {**asked, "engine_expected": False}) == []
    seen["engine"]["runtimes"] = ["nvidia", "runc"]
    assert refusals(seen, asked) == []


def test_causes_come_without_their_effects() -> None:
    broken = {
        "nvidia_smi": {"found": True, "rc": 9, "error": "cannot talk to the driver"},
        "nvidia_driver": "",
        "uvm": False,
    }
    (cause,) = graphics.obstacles(facts(gpus=[{**CARD, "driver": ""}], gpu=broken), WANTED, "nvidia")
    assert "driver of NVIDIA is not loaded" in cause


# -- what goes ahead -----------------------------------------------------------


OVERRIDE = "/etc/systemd/system/ollama.service.d/override.conf"


def overridden(**said: str) -> dict[str, Any]:
    return ollama(unit={"overrides": said, "overridden_in": dict.fromkeys(said, OVERRIDE)})


def test_settings_that_win_over_the_role() -> None:
    seen = overridden(OLLAMA_DEBUG="2", OTHER="x")
    (sentence,) = warnings(seen, wanted(env={"OLLAMA_HOST": "0.0.0.0:11434", "OLLAMA_DEBUG": "1"}))
    assert OVERRIDE in sentence and "OLLAMA_DEBUG" in sentence and "OTHER" not in sentence
    assert warnings(seen, wanted(env={"OLLAMA_DEBUG": "2"})) == []
    assert warnings(seen, wanted(env={"OLLAMA_DEBUG": "1"}, install="container")) == []


@pytest.mark.parametrize(
    ("said", "wins"),
    [
        ({"OLLAMA_HOST": "0.0.0.0"}, True),
        ({"OLLAMA_HOST": ""}, False),  # what it then takes is what the role wants
        ({"OLLAMA_HOST": "127.0.0.1"}, False),
        ({"OLLAMA_HOST": "http://127.0.0.1:11434/"}, False),
        ({"OLLAMA_HOST": "http://127.0.0.1"}, True),  # port 80
        ({"OLLAMA_HOST": "127.0.0.1:8080"}, True),
        ({"OLLAMA_HOST": ":11434"}, True),
        ({"OLLAMA_MODELS": "/srv/models/"}, False),
        ({"OLLAMA_MODELS": "/data"}, True),
        ({"OLLAMA_MODELS": ""}, True),
    ],
)
def test_what_the_firewall_and_the_store_go_by_is_not_overruled(said: dict[str, str], wins: bool) -> None:
    env = {"OLLAMA_HOST": "127.0.0.1:11434", "OLLAMA_MODELS": "/srv/models"}
    seen = overridden(**said)
    (name,) = said
    if wins:
        sentence = one(seen, wanted(env=env))
        assert sentence.startswith(f"{OVERRIDE} ") and f"role's {name}={env[name]}" in sentence
        assert ("ollama_models_dir" if name == "OLLAMA_MODELS" else "ollama_bind and ollama_port") in sentence
    else:
        assert refusals(seen, wanted(env=env)) == []
    assert warnings(seen, wanted(env=env)) == []  # once is enough
    assert refusals(seen, wanted(env=env, install="container", min_disk_mb=0)) == []
