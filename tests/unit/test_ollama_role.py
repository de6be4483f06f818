# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role ollama writes and decides, from facts alone: its variables and templates, without a host."""

from __future__ import annotations

import base64
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, lookup_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.llmops.stack.plugins.filter import stack_mirror
from ansible_collections.llmops.stack.plugins.filter.ollama import FilterModule
from ansible_collections.llmops.stack.plugins.module_utils import _stack_facts, _stack_facts_ollama
from ansible_collections.llmops.stack.plugins.module_utils._guard import files
from ansible_collections.llmops.stack.plugins.module_utils._ollama_plan import USER_HOME
from ansible_collections.llmops.stack.plugins.module_utils._ollama_plan_before import UNDO
from ansible_collections.llmops.stack.plugins.module_utils._ollama_systemd import (
    parse_environment,
    parse_environment_file,
    values_of,
)

ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "ollama"
UNIT = "/etc/systemd/system/ollama.service"
DROPIN = "/etc/systemd/system/ollama.service.d/10-llmops.conf"
FIREWALL = "/etc/ollama/firewall.nft"
SECRETS = "/etc/ollama/secrets.env"
CONTAINER = "llmops-ollama-ollama-1"
VERSION = "0.17.4"
PARTS = (
    *("install", "note", "firewall", "firewall_left", "openings", "configure", "service", "container", "prune"),
    *("metrics", "metrics_left"),
)
NVIDIA = {"vendor": "nvidia", "pci": "0000:01:00.0", "driver": "nvidia", "nodes": ["/dev/nvidia0"], "name": "L4"}
AMD = {"vendor": "amd", "pci": "0000:03:00.0", "driver": "amdgpu", "nodes": ["/dev/kfd"], "name": "MI300X"}
PLANNED = trust_as_template("{{ __ollama_planned }}")
COMPARED = trust_as_template("{{ __ollama_compared }}")
INFO = {"version": VERSION, "gpu": {"decided": "cpu"}}
Ask = Callable[..., Any]


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    tmp_path.chmod(0o755)  # the service user has to pass through it
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n')
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nrender:x:105:\nvideo:x:44:\n")
    return tmp_path


def look(root: pathlib.Path, **changes: Any) -> dict[str, Any]:
    """What stack_facts sees below `root`; `changes` are of its part about Ollama."""
    facts = _stack_facts.StackFacts(root=str(root), run=lambda *a, **k: (127, "")).collect()
    facts["os"].update(arch="amd64", machine="x86_64")
    facts["systemd"] = True
    facts["python"]["requests"] = "2.32.3"
    facts["ollama"].update(changes)
    return facts


@pytest.fixture(scope="module")
def plugins() -> Iterator[None]:
    """Filters and lookups by their full names, without Ansible's own importer, which the other tests do not expect."""
    own = {**FilterModule().filters(), **stack_mirror.FilterModule().filters()}
    filters = {f"llmops.stack.{name}": function for name, function in own.items()}
    find_filter, find_lookup = filter_loader.get, lookup_loader.get

    def get_filter(name: str, *args: Any, **options: Any) -> Any:
        if name in filters:
            return filter_loader._wrap_func(name, name, filters[name])
        return find_filter(name, *args, **options)

    def get_lookup(name: str, *args: Any, **options: Any) -> Any:
        return find_lookup(name.removeprefix("ansible.builtin."), *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filter_loader, "get", get_filter)
        patch.setattr(lookup_loader, "get", get_lookup)
        yield


@pytest.fixture(scope="module")
def ask(plugins: None) -> Ask:
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        variables.update(loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True))

    def ask(name: str, facts: dict[str, Any], **given: Any) -> Any:
        everything = {
            **variables,
            "ollama_version": VERSION,
            "inventory_hostname": "node1",
            "ansible_check_mode": False,
            "ansible_search_path": [str(ROLE)],
            **given,
            "ansible_facts": {"llmops_stack": facts},
        }
        everything["__ollama_plan"] = Templar(loader=loader, variables=everything).template(PLANNED)
        everything["__ollama_changes"] = COMPARED  # only where it is asked for: a plan with refusals is not compared
        return Templar(loader=loader, variables=everything).template(trust_as_template("{{ " + name + " }}"))

    return ask


def to_do(ask: Ask, facts: dict[str, Any], **given: Any) -> list[str]:
    """Parts of the role that have work to do."""
    changes = ask("__ollama_changes", facts, **given)
    parts = [part for part in PARTS if changes[part]]
    assert changes["any"] is bool(parts)
    return [*parts, *(["settle"] if ask("__ollama_settle_needed", facts, **given) else [])]


def guarded(ask: Ask, facts: dict[str, Any], **given: Any) -> dict[str, str]:
    """The files of the guard as the role has them written."""
    return files(ask("__ollama_plan.guard", facts, **given), ask("__ollama_guarded_ports", facts, **given))


def mark_of(rules: str) -> str:
    (mark,) = re.findall(r"chain rules_([0-9a-f]{12}) ", rules)
    return str(mark)


def write(root: pathlib.Path, path: str, text: str) -> None:
    (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / path.lstrip("/")).write_text(text)


def finished(ask: Ask, root: pathlib.Path, gpus: tuple[dict[str, Any], ...] = (), **given: Any) -> dict[str, Any]:
    """Facts of a host on which the role has done everything that it wants to do."""
    version = given.get("ollama_version", VERSION)
    facts = look(root)
    facts["gpus"] = list(gpus)
    changes = ask("__ollama_changes", facts, **given)
    texts = {**ask("__ollama_texts", facts, **given), **changes["texts"]}
    rules = guarded(ask, facts, **given)
    for path, text in ((UNIT, texts["unit"]), (DROPIN, texts["dropin"]), (SECRETS, texts["secrets"]), *rules.items()):
        write(root, path, text)
    release = {"complete": True, "overlays": ask("__ollama_plan.overlays", facts, **given), "checksums": {}}
    facts = look(
        root,
        active=True,
        enabled=True,
        current=version,
        server=version,
        releases={version: release},
        nft=True,
        zstd=True,
    )
    facts["gpus"] = list(gpus)
    facts["ollama"]["user"]["exists"] = True
    facts["ollama"]["link"] = "/opt/ollama/current/bin/ollama"
    facts["ollama"]["running_env"] = {"OLLAMA_LLMOPS_STAMP": changes["stamp"]}
    facts["ollama"]["models_dir"].update(exists=True, owner="ollama")
    facts["ollama"]["firewall"].update(table=mark_of(rules[FIREWALL]), enabled=True)
    return facts


# -- a finished host ----------------------------------------------------------


def test_a_finished_host_needs_nothing(ask: Ask, root: pathlib.Path) -> None:
    facts = finished(ask, root)
    assert facts["ollama"]["unit"]["ours"]
    assert not facts["ollama"]["unit"]["edited"]
    assert to_do(ask, facts) == []
    assert ask("__ollama_plan.refusals", facts) == []
    assert ask("__ollama_changes.remarks", facts) == []


@pytest.mark.parametrize(
    ("change", "restarts", "loads"),
    [
        ({"ollama_keep_alive": "30m"}, True, False),
        ({"ollama_context_length": 8192}, True, False),
        ({"ollama_env": {"OLLAMA_VULKAN": "false"}}, True, False),
        ({"ollama_allow": ["10.0.0.0/8"]}, False, True),
        ({"ollama_container_interfaces": ["docker0"]}, False, True),
        ({"ollama_port": 11500}, True, True),
        ({"ollama_models": ["all-minilm"]}, False, False),
        ({"ollama_keep": 5}, False, False),
    ],
    ids=str,
)
def test_what_a_change_costs(ask: Ask, root: pathlib.Path, change: Any, restarts: bool, loads: bool) -> None:
    facts = finished(ask, root)
    assert ask("__ollama_changes.service", facts, **change) is restarts
    assert ask("__ollama_changes.firewall", facts, **change) is loads
    again = finished(ask, root, **change)
    assert to_do(ask, again, **change) == []


def test_a_home_is_written_in_one_way(ask: Ask, root: pathlib.Path) -> None:
    facts = finished(ask, root)
    for home in ("/opt/ollama/", "//opt//ollama"):
        assert to_do(ask, facts, ollama_home=home) == []


# -- units that are not as this role wrote them ---------------------------------


def test_an_edited_unit_is_kept_and_told(ask: Ask, root: pathlib.Path) -> None:
    facts = finished(ask, root)
    path = root / UNIT[1:]
    path.write_text(path.read_text().replace("RestartSec=3", "RestartSec=9"))
    edited = look(root)["ollama"]
    facts["ollama"].update(unit=edited["unit"], files=edited["files"])
    assert to_do(ask, facts) == []
    (remark,) = ask("__ollama_changes.remarks", facts)
    assert "node1" in remark
    assert "edited by hand" in remark
    assert ask("__ollama_changes.configure", facts, ollama_unit_replace=True) is True


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"ollama_firewall": "none"}, "ollama_firewall: none"),
        ({"ollama_bind": "127.0.0.1", "ollama_containers": False}, "ollama_bind of 127.0.0.1"),
        ({"ollama_models_dir": "/srv/models"}, "not to /srv/models"),
    ],
    ids=str,
)
def test_an_edited_unit_that_would_not_work_is_refused(
    ask: Ask, root: pathlib.Path, given: dict[str, Any], word: str
) -> None:
    facts = finished(ask, root)
    (root / UNIT[1:]).write_text((root / UNIT[1:]).read_text().replace("RestartSec=3", "RestartSec=9"))
    facts["ollama"].update(unit=look(root)["ollama"]["unit"])
    assert ask("__ollama_plan.refusals", facts) == []
    facts["ollama"]["models_dir"]["realpath"] = given.get("ollama_models_dir", "/usr/share/ollama/.ollama/models")
    (sentence,) = ask("__ollama_plan.refusals", facts, **given)
    for said in (UNIT, word, "ollama_unit_replace"):
        assert said in sentence
    assert ask("__ollama_plan.refusals", facts, **given, ollama_unit_replace=True) == []
    facts["ollama"]["unit"].update(guarded=False, writable=["/"])
    (sentence,) = ask("__ollama_plan.refusals", facts)
    assert "without our firewall rules" in sentence


def test_a_unit_of_somebody_else_is_replaced_and_its_settings_told(ask: Ask, root: pathlib.Path) -> None:
    text = "[Unit]\nDescription=Ollama Service\n[Service]\nExecStart=/usr/local/bin/ollama serve\nUser=ollama\n"
    write(root, UNIT, text + 'Environment="PATH=/usr/bin"\nEnvironment="OLLAMA_KEEP_ALIVE=24h"\n')
    facts = look(root, active=True, enabled=True, server="0.13.5")
    assert ask("__ollama_plan.unit.in_the_way", facts) is True
    assert ask("__ollama_changes.configure", facts) is True
    assert ask("__ollama_plan.unit.environment", facts) == ["OLLAMA_KEEP_ALIVE=24h"]
    assert ask("__ollama_changes.previous", facts) == "0.13.5"


def test_drop_ins_of_the_operator_are_named(ask: Ask, root: pathlib.Path) -> None:
    write(root, f"{UNIT}.d/override.conf", "[Service]\nNice=5\n")
    facts = finished(ask, root)
    assert any("override.conf" in remark for remark in ask("__ollama_changes.remarks", facts))
    assert to_do(ask, facts) == []


# -- what is written ------------------------------------------------------------


def test_the_marker_is_the_hash_of_what_follows(ask: Ask, root: pathlib.Path) -> None:
    first, rest = ask("__ollama_changes.texts.unit", look(root)).split("\n", 1)
    assert first == f"# llmops.stack {hashlib.sha256(rest.encode()).hexdigest()}"
    assert rest.endswith("\n")


def test_the_unit(ask: Ask, root: pathlib.Path) -> None:
    unit = ask("__ollama_changes.texts.unit", look(root), ollama_models_dir="/srv/models")
    assert values_of(unit, "Service", "ExecStart") == ["/opt/ollama/current/bin/ollama serve"]
    assert values_of(unit, "Install", "WantedBy") == ["multi-user.target"]
    assert values_of(unit, "Service", "ReadWritePaths") == ["/usr/share/ollama /srv/models"]
    assert parse_environment([unit])["HOME"] == "/usr/share/ollama"
    assert "nvidia-persistenced.service" in values_of(unit, "Unit", "After")[0]
    assert values_of(unit, "Unit", "StartLimitBurst")
    for breaks_gpus in ("PrivateDevices", "DevicePolicy", "DeviceAllow", "MemoryDenyWriteExecute", "ProtectClock"):
        assert values_of(unit, "Service", breaks_gpus) == []
    assert values_of(unit, "Unit", "Requires") == []


def test_the_server_does_not_start_without_the_rules(ask: Ask, root: pathlib.Path) -> None:
    guard = values_of(ask("__ollama_changes.texts.unit", look(root)), "Service", "ExecStartPre")
    assert any(line.startswith("+") and "nft list table inet llmops_ollama" in line for line in guard)
    for off in ({"ollama_firewall": "none"}, {"ollama_containers": False}):
        unit = ask("__ollama_changes.texts.unit", look(root), **off)
        assert "nft" not in unit
        assert "ollama-firewall" not in unit
        assert ask("__ollama_changes.firewall", look(root), **off) is False


def test_units_of_gpu_hosts(ask: Ask, root: pathlib.Path) -> None:
    facts = look(root)
    facts["gpus"] = [NVIDIA]
    assert "nvidia-modprobe" in ask("__ollama_changes.texts.unit", facts)
    facts["gpus"], facts["gpu"]["kfd"] = [AMD], True
    unit = ask("__ollama_changes.texts.unit", facts)
    assert values_of(unit, "Service", "SupplementaryGroups") == ["105"]
    assert "nvidia-modprobe" not in unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here to ask")
@pytest.mark.parametrize("text", ["unit", "dropin"])
def test_systemd_understands_what_is_written(ask: Ask, root: pathlib.Path, tmp_path: pathlib.Path, text: str) -> None:
    file = tmp_path / "source.service"
    facts = look(root)
    facts["gpus"] = [NVIDIA]
    file.write_text(ask(f"__ollama_texts.{text}", facts, ollama_env={"LLAMA_ARG_FIT": 'a "b" \\ 100%'}))
    check = ask("__ollama_unit_check", facts).strip() % file
    subprocess.run(check, shell=True, check=True)
    file.write_text(file.read_text().replace("[Service]", "[Service]\nNoNewPrivilege=true"))
    assert subprocess.run(check, shell=True, check=False, capture_output=True).returncode


def test_settings_arrive_as_they_are(ask: Ask, root: pathlib.Path) -> None:
    odd = 'say "50%" \\ $HOME'
    text = ask("__ollama_changes.texts.dropin", look(root), ollama_env={"LLAMA_ARG_FIT": odd}, ollama_keep_alive="30m")
    env = parse_environment([text])
    assert env["LLAMA_ARG_FIT"] == odd
    assert env["OLLAMA_KEEP_ALIVE"] == "30m"
    assert env["OLLAMA_HOST"] == "0.0.0.0:11434"
    assert re.fullmatch(r"[0-9a-f]{12}", env["OLLAMA_LLMOPS_STAMP"])


def test_a_login_is_kept_apart(ask: Ask, root: pathlib.Path) -> None:
    facts = look(root)
    proxy = {"ollama_https_proxy": "http://me:pa\\55@proxy:3128", "ollama_keep_alive": "30m"}
    assert ask("__ollama_plan.secrets", facts, ollama_https_proxy="http://proxy:3128") == {}
    assert ask("__ollama_plan.secrets", facts, **proxy) == {"HTTPS_PROXY": proxy["ollama_https_proxy"]}
    text = ask("__ollama_changes.texts.dropin", facts, **proxy)
    assert "55@" not in text
    assert "OLLAMA_KEEP_ALIVE=30m" in text
    assert values_of(text, "Service", "EnvironmentFile") == ["/etc/ollama/secrets.env"]
    other = ask("__ollama_changes.texts.dropin", facts, **{**proxy, "ollama_https_proxy": "http://me:other@proxy:3128"})
    assert other != text, "a new login is noticed, as files are compared and this one holds the stamp"
    secret = ask("lookup('ansible.builtin.template', 'secrets.env.j2')", facts, **proxy)
    assert parse_environment_file(secret) == {"HTTPS_PROXY": proxy["ollama_https_proxy"]}
    assert "55@" not in str(ask("__ollama_changes.remarks", facts, **proxy))


def test_before_a_gateway_nobody_else_is_let_in(ask: Ask, root: pathlib.Path) -> None:
    given: dict[str, Any] = {"ollama_allow": ["10.0.0.0/8"], "ollama_gateways": ["192.0.2.7"]}
    chain = guarded(ask, look(root), **given)[FIREWALL].partition("chain who")[2]
    assert re.findall(r"(\S+) accept", chain) == ['"lo"', "192.0.2.7"]
    alone = {**given, "ollama_containers": False, "ollama_allow": []}
    assert ask("__ollama_plan.bind", look(root), **alone) == "0.0.0.0"
    six = ask("__ollama_plan", look(root), **{**given, "ollama_gateways": ["2001:db8::7"]})
    assert six["bind"] == "[::]"
    assert six["guard"]["let_in"] == {"addresses": ["2001:db8::7"], "interfaces": []}
    for wrong, words in (("gateway.example.com", "no address or network"), ("0.0.0.0/0", "which is everybody")):
        (said,) = ask("__ollama_plan.refusals", look(root), **{**given, "ollama_gateways": [wrong]})
        assert f"ollama_gateways holds {wrong}" in said.replace("'", "")
        assert words in said


def test_rules_for_two_ports_until_the_new_one_has_answered(ask: Ask, root: pathlib.Path) -> None:
    facts = look(root)
    before = guarded(ask, facts, ollama_port=11434)[FIREWALL]
    here: dict[str, Any] = {"ollama_port": 11500, "__ollama_rules_before": read(before)}
    both = guarded(ask, facts, **here)[FIREWALL]
    assert "tcp dport { 11500, 11434 } jump who" in both
    assert ask("__ollama_settle_needed", facts, **here) is True
    # Ended in between, the next run sees the rules for both.
    again: dict[str, Any] = {"ollama_port": 11500, "__ollama_rules_before": read(both)}
    assert guarded(ask, facts, **again)[FIREWALL] == both
    proved = guarded(ask, facts, **again, __ollama_proved=True)[FIREWALL]
    assert "tcp dport 11500 jump who" in proved
    assert proved == guarded(ask, facts, ollama_port=11500)[FIREWALL]
    assert ask("__ollama_settle_needed", facts, ollama_port=11434, __ollama_rules_before=read(before)) is False


def read(text: str) -> dict[str, str]:
    return {"content": base64.b64encode(text.encode()).decode()}


# -- in a container -----------------------------------------------------------------


def test_the_compose_file(ask: Ask, root: pathlib.Path) -> None:
    facts = look(root)
    facts["gpus"] = [NVIDIA]
    given = {"ollama_install": "container", "ollama_env": {"LLAMA_ARG_FIT": "a$b"}}
    service = yaml.safe_load(ask("__ollama_changes.texts.compose", facts, **given))["services"]["ollama"]
    assert service["image"] == f"ollama/ollama:{VERSION}"
    assert service["network_mode"] == "host"
    assert service["volumes"] == ["/usr/share/ollama/.ollama/models:/root/.ollama/models"]
    assert service["environment"]["LLAMA_ARG_FIT"] == "a$$b"
    assert "OLLAMA_MODELS" not in service["environment"]
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    facts["gpus"], facts["gpu"]["kfd"] = [AMD], True
    service = yaml.safe_load(ask("__ollama_changes.texts.compose", facts, **given))["services"]["ollama"]
    assert service["devices"] == ["/dev/kfd", "/dev/dri"]
    assert service["group_add"] == ["105"]


def test_what_a_container_was_made_from_is_on_it(ask: Ask, root: pathlib.Path) -> None:
    """A run that was ended between file and container leaves the file as wanted, and the old container."""
    facts = look(root)
    stamps = set()
    for change in ({}, {"ollama_keep_alive": "30m"}, {"ollama_models_dir": "/srv/models"}):
        given = {"ollama_install": "container", **change}
        service = yaml.safe_load(ask("__ollama_changes.texts.compose", facts, **given))["services"]["ollama"]
        assert service["labels"] == {"llmops.stamp": ask("__ollama_changes.stamp", facts, **given)}
        stamps.add(service["labels"]["llmops.stamp"])
    assert len(stamps) == 3


@pytest.mark.parametrize(
    ("kept", "url"),
    [
        ({"failed": False, "msg": "not there"}, "http://127.0.0.1:11434"),
        ("0.0.0.0:11500", "http://127.0.0.1:11500"),
        ("[::]:11500", "http://127.0.0.1:11500"),
        ("10.0.0.5:11434", "http://10.0.0.5:11434"),
    ],
)
def test_where_a_container_served_before(ask: Ask, root: pathlib.Path, kept: Any, url: str) -> None:
    if isinstance(kept, str):
        text = yaml.safe_dump({"services": {"ollama": {"environment": {"OLLAMA_HOST": kept}}}})
        kept = {"content": base64.b64encode(text.encode()).decode()}
    assert ask("__ollama_compose_back_url", look(root), __ollama_compose_kept=kept) == url


def test_a_store_behind_a_link_may_be_written(ask: Ask, root: pathlib.Path) -> None:
    (root / "srv/models").mkdir(parents=True)
    (root / "usr/share/ollama/.ollama").mkdir(parents=True)
    (root / "usr/share/ollama/.ollama/models").symlink_to(root / "srv/models")
    unit = ask("__ollama_changes.texts.unit", look(root))
    assert values_of(unit, "Service", "ReadWritePaths") == ["/usr/share/ollama /srv/models"]
    assert values_of(unit, "Unit", "RequiresMountsFor") == ["/usr/share/ollama /srv/models"]
    facts = look(root)
    facts["ollama"]["models_dir"]["realpath"] = "/home/me/models"
    assert "/home/me/models" in " ".join(ask("__ollama_plan.refusals", facts))
    assert ask("__ollama_plan.refusals", facts, ollama_install="container") == []


def test_a_check_run_gives_nothing_to_a_user_that_is_not_there(ask: Ask, root: pathlib.Path) -> None:
    facts = look(root)
    facts["ollama"]["models_dir"]["exists"] = True
    made = {"__ollama_group": {"changed": True}}
    there = {"__ollama_group": {"changed": False}}
    assert ask("__ollama_store_known", facts, **made) is False
    facts["ollama"]["user"]["exists"] = True
    assert ask("__ollama_store_known", facts, **made) is False
    assert ask("__ollama_store_known", facts, **there) is True


# -- where things come from ------------------------------------------------------------


def test_one_variable_points_everything_at_a_mirror(ask: Ask, root: pathlib.Path) -> None:
    facts = look(root)
    mirror = {"stack_mirror": "http://me:secret@mirror.internal:8080/"}
    assert ask("ollama_archive_url", facts, **mirror).endswith(
        f"mirror.internal:8080/github/ollama/ollama/releases/download/v{VERSION}"
    )
    assert ask("ollama_registry", facts, **mirror) == "http://mirror.internal:8080"
    assert ask("__ollama_plan.registry", facts, **mirror) == "mirror.internal:8080"
    assert ask("__ollama_plan.registry_insecure", facts, **mirror) is True
    assert "secret" not in ask("__ollama_plan.product", facts, **mirror)
    odd = {"stack_mirror": "https://me:p@ss@mirror.internal/below/it/"}
    assert ask("ollama_registry", facts, **odd) == "https://mirror.internal"
    assert ask("ollama_registry", facts) == ""
    assert ask("__ollama_plan.registry_insecure", facts) is False
    assert ask("__ollama_plan.registry_insecure", facts, ollama_registry="mirror.internal") is False
    assert ask("ollama_archive_url", facts) == f"https://github.com/ollama/ollama/releases/download/v{VERSION}"


# -- the way back -----------------------------------------------------------------------


NOTE = {"version": "0.13.5", "current": "0.13.5", "url": "http://127.0.0.1:11500", "files": [UNIT, FIREWALL]}


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({}, False),
        ({"ollama_version": "0.18.0"}, True),
        ({"ollama_keep_alive": "30m"}, True),
        ({"ollama_port": 11500}, True),
        ({"ollama_allow": ["10.0.0.1"]}, False),  # restarts nothing
        ({"ollama_models": ["all-minilm"]}, False),
    ],
    ids=str,
)
def test_what_is_noted_before_a_change(ask: Ask, root: pathlib.Path, change: dict[str, Any], needed: bool) -> None:
    facts = finished(ask, root)
    assert ask("__ollama_changes.note", facts, **change) is needed
    assert ask("__ollama_way_back", facts, **change) is False, "it is not noted yet"
    assert ask("__ollama_way_back", facts, **change, __ollama_noted={"changed": True}) is True
    noted = ask("__ollama_changes.noted", facts, **change)
    assert noted["files"] == [UNIT, DROPIN, SECRETS, FIREWALL]
    assert (noted["version"], noted["current"], noted["url"]) == (VERSION, VERSION, "http://127.0.0.1:11434")


def test_a_run_that_was_ended_is_taken_up(ask: Ask, root: pathlib.Path) -> None:
    """Killed at any place: as far as anybody can see, all may be as it should be."""
    facts = finished(ask, root)
    facts["ollama"]["way_back"] = NOTE
    assert ask("__ollama_changes.note", facts, ollama_keep_alive="30m") is False, "what served then is what counts"
    assert ask("__ollama_changes.noted", facts, ollama_keep_alive="30m") == NOTE
    assert ask("__ollama_changes.previous", facts) == "0.13.5"
    for name in ("changes.service", "way_back", "settle_needed"):
        assert ask(f"__ollama_{name}", facts) is True, name
    assert ask("__ollama_restart_needed", facts) is False


@pytest.mark.parametrize(
    ("server", "noted", "back", "says"),
    [
        ("", False, None, "Nothing served here before"),
        ("0.17.4", True, {"failed": False}, "0.17.4 serves again"),
        ("0.17.4", True, {"failed": True}, "did not help"),
        ("0.17.4", True, {"changed": False, "skipped": True}, "did not help"),
        ("0.17.4", True, None, "did not help"),
        ("0.17.4", False, {"changed": False, "skipped": True}, "nothing to go back to"),
    ],
)
def test_what_is_said_in_the_end(ask: Ask, root: pathlib.Path, server: str, noted: bool, back: Any, says: str) -> None:
    given: dict[str, Any] = {"ollama_version": "0.18.0", "__ollama_noted": {"changed": noted}}
    if back is not None:
        given["__ollama_back"] = back
    assert says in ask("__ollama_outcome", look(root, server=server), **given)


def test_last_words_have_no_login(ask: Ask, root: pathlib.Path) -> None:
    lines = ['msg="server config" env="map[HTTPS_PROXY:http://a:b@c]"', "Error: no http://a:b@c", "exit", "exit"]
    assert ask("__ollama_journal_tail", look(root), __ollama_journal={"stdout_lines": lines}) == [
        "Error: no http://***@c",
        "exit",
    ]


# -- figures -------------------------------------------------------------------------------


def test_figures_are_off_and_cost_nothing(ask: Ask, root: pathlib.Path) -> None:
    assert ask("__ollama_texts.metrics_program ~ __ollama_texts.metrics_unit", look(root)) == ""
    assert ask("__ollama_summary | select('search', 'Figures')", look(root), __ollama_info=INFO) == []


def test_the_unit_of_the_figures(ask: Ask, root: pathlib.Path) -> None:
    wanted = {"ollama_metrics": True, "ollama_bind": "10.0.0.7", "ollama_metrics_port": 9101, "ollama_gpu": "cpu"}
    unit = ask("__ollama_texts.metrics_unit", look(root), **wanted)
    (start,) = values_of(unit, "Service", "ExecStart")
    assert start.split() == [
        "/usr/bin/python3", "-I", "/opt/ollama/ollama-metrics.py", "--server", "http://10.0.0.7:11434", "--address",
        "127.0.0.1", "--port", "9101", "--gpu", "cpu", "--unit", "ollama.service",
    ]  # fmt: skip
    assert values_of(unit, "Service", "DynamicUser") == ["true"]
    unit = ask("__ollama_texts.metrics_unit", look(root), ollama_metrics=True, ollama_install="container")
    assert "--unit" not in unit


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11435/metrics"), ("0.0.0.0", "http://127.0.0.1:11435/metrics"),
        ("::", "http://[::1]:11435/metrics"), ("10.0.0.7", "http://10.0.0.7:11435/metrics"),
    ],
)  # fmt: skip
def test_where_the_figures_are_asked_for(ask: Ask, root: pathlib.Path, bind: str, url: str) -> None:
    given = {"ollama_metrics": True, "ollama_metrics_bind": bind}
    assert ask("__ollama_metrics_url", look(root), **given) == url
    said = ask("__ollama_summary", look(root), __ollama_info=INFO, **given)
    assert f"Figures for Prometheus: {url}" in said


# -- the mirror ------------------------------------------------------------------------------


def test_a_mirror_that_cannot_be_reached_is_refused_by_who_needs_it(ask: Ask, root: pathlib.Path) -> None:
    down = {"error": "The mirror is down.", "wrong": False}
    installed = {"releases": {VERSION: {"complete": True}}}
    model = {"digest": "e0979632db5a", "content": "0f0c4e1ab3d2", "weights": 1, "whole": True}
    held = {**installed, "store": {"models": {"speak:latest": model}, "blobs": [], "partial": {}}}
    for changes, models, said in (
        ({}, [], [down["error"]]),
        (installed, [], []),
        (installed, ["speak"], [down["error"]]),
        (held, ["speak"], []),
    ):
        facts = {**look(root, **changes), "mirror": down}
        assert ask("__ollama_mirror_refusals", facts, ollama_models=models) == said, (changes, models)


# -- order ---------------------------------------------------------------------------------


def test_the_role_reads_as_it_runs() -> None:
    def order(name: str) -> list[str]:
        tasks = yaml.safe_load((ROLE / "tasks" / name).read_text())
        words = [f"ansible.builtin.{word}" for word in ("include_tasks", "import_tasks", "include_role")]
        found = [next(task[word] for word in words if word in task) for task in tasks]
        return [one.removesuffix(".yml") if isinstance(one, str) else one["tasks_from"] for one in found]

    assert order("main.yml") == ["preflight", "client", "change", "models", "answer"]
    assert order("change.yml") == [
        "install", "drain", "remember", "firewall", "openings", "configure", "service", "container", "settle", "prune",
        "metrics", "metrics_off",
    ]  # fmt: skip


def test_only_a_server_with_calls_to_lose_is_drained(ask: Ask, root: pathlib.Path) -> None:
    facts = look(root, server=VERSION)
    assert ask("__ollama_drain_needed", facts) is False  # there is no gateway
    assert ask("__ollama_drain_needed", facts, ollama_drain_at="gw1") is True
    assert ask("__ollama_drain_needed", facts, ollama_drain_at="gw1", ansible_check_mode=True) is False
    assert ask("__ollama_drain_needed", look(root), ollama_drain_at="gw1") is False


def test_only_a_server_with_the_same_store_pulls_before_it_is_drained(ask: Ask, root: pathlib.Path) -> None:
    facts = look(root, server=VERSION)
    facts["ollama"]["unit"]["models_dir"] = "/usr/share/ollama/.ollama/models"
    assert ask("__ollama_pull_first", facts) is False  # nothing is missing
    assert ask("__ollama_pull_first", facts, ollama_models=["tiny"]) is True
    assert ask("__ollama_pull_first", facts, ollama_models=["tiny"], ollama_models_dir="/srv/models") is False
    facts["ollama"]["server"] = ""
    assert ask("__ollama_pull_first", facts, ollama_models=["tiny"]) is False


def test_systemd_forgets_a_unit_that_is_gone() -> None:
    """It would go on to show one that cannot be started, until somebody has it look again."""
    tasks = yaml.safe_load((ROLE / "tasks/metrics_off.yml").read_text())
    assert [next(key for key in task if "." in key).rpartition(".")[2] for task in tasks] == [
        "systemd_service", "file", "systemd_service",
    ]  # fmt: skip
    assert tasks[-1]["ansible.builtin.systemd_service"] == {"daemon_reload": True}


def test_every_variable_reaches_the_decisions(ask: Ask, root: pathlib.Path) -> None:
    """All but what only tells modules how long to wait and how much to prove, and what is for Dify and the gateway."""
    names = set(yaml.safe_load((ROLE / "defaults/main.yml").read_text()))
    passed = set(ask("__ollama_variables", look(root)))
    assert names - passed == {
        "ollama_look", "ollama_verify", "ollama_download_timeout", "ollama_start_timeout", "ollama_pull_timeout",
        "ollama_pull_stall", "ollama_probe_timeout", "ollama_url", "ollama_drain_at", "ollama_drain_seconds",
    }  # fmt: skip
    assert passed - names == {"host", "engine_expected"}


def test_tasks_and_decisions_name_the_same_files(ask: Ask, root: pathlib.Path) -> None:
    facts = look(root)
    assert tuple(ask("__ollama_undo_paths", facts)) == UNDO
    for name, path in (
        ("unit_path", _stack_facts_ollama.UNIT),
        ("metrics_unit_path", _stack_facts_ollama.METRICS_UNIT),
        ("metrics_path", f"/opt/ollama/{_stack_facts_ollama.METRICS_PROGRAM}"),
        ("dropin_path", f"{_stack_facts_ollama.UNIT}.d/{_stack_facts_ollama.DROPIN}"),
        ("secrets_path", _stack_facts_ollama.SECRETS),
        ("firewall_path", _stack_facts_ollama.PLACES.rules),
        ("way_back_path", _stack_facts_ollama.WAY_BACK),
        ("user_home", USER_HOME),
        ("container", CONTAINER),
    ):
        assert ask(f"__ollama_{name}", facts) == path, name


def test_models_are_asked_for_in_one_way() -> None:
    def options(name: str) -> Any:
        for task in yaml.safe_load((ROLE / "tasks" / name).read_text()):
            if "llmops.stack.ollama_model" in task:
                return {
                    key: task["llmops.stack.ollama_model"][key] for key in sorted(task["llmops.stack.ollama_model"])
                }

    pulled, checked = options("models.yml"), options("verify.yml")
    pulled.pop("stall")
    assert json.dumps(pulled) == json.dumps(checked)
