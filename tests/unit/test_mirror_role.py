# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What role mirror decides from facts: its variables, templated without a host."""

from __future__ import annotations

import configparser
import pathlib
import subprocess
import unittest.mock
from collections.abc import Callable
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.llmops.stack.tests.unit.machine import Machine

ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles" / "mirror"
PACKAGES = {"nginx": "1", "docker-registry": "2.8", "apt-cacher-ng": "3", "skopeo": "1", "python3-requests": "2"}
UNITS = ["llmops-mirror-registry", "llmops-mirror-apt", "llmops-mirror-market", "llmops-mirror-web"]
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask() -> Ask:
    loader = DataLoader()
    variables: dict[str, Any] = {"ansible_managed": "Ansible managed", "ansible_check_mode": False}
    for part in ("defaults", "vars"):
        variables.update(loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True))
    find = lookup_loader.get

    def get(name: str, *args: Any, **options: Any) -> Any:
        return find(name.removeprefix("ansible.builtin."), *args, **options)

    def ask(name: str, facts: dict[str, Any] | None = None, **given: Any) -> Any:
        found = {"ansible_facts": {"llmops_stack": facts or {}}, "ansible_search_path": [str(ROLE)]}
        templar = Templar(loader=loader, variables={**variables, **found, **given})
        with unittest.mock.patch.object(lookup_loader, "get", get):
            return templar.template(trust_as_template("{{ " + name + " }}"))

    return ask


@pytest.fixture
def bare(tmp_path: pathlib.Path) -> dict[str, Any]:
    machine = Machine(tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    return machine.facts()


def tasks(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DataLoader().load_from_file(str(ROLE / "tasks" / f"{name}.yml"))
    return found


def held(unit: str = "", process: str = "nginx", container: str = "") -> dict[str, Any]:
    return {"pid": 7, "process": process, "container": container, "unit": unit}


class TestRefusals:
    def test_a_host_that_will_do(self, ask: Ask, bare: dict[str, Any]) -> None:
        assert ask("__mirror_refusals", bare) == []
        assert ask("__mirror_missing", bare) == list(PACKAGES)
        bare["engine"]["packages"] = PACKAGES
        assert ask("__mirror_missing", bare) == []

    def test_another_family(self, ask: Ask, bare: dict[str, Any]) -> None:
        bare["os"].update(family="RedHat", pretty="Rocky Linux 9.4")
        (said,) = ask("__mirror_refusals", bare)
        assert "Rocky Linux 9.4" in said and "make another host the mirror" in said

    def test_no_systemd(self, ask: Ask, bare: dict[str, Any]) -> None:
        assert "systemd does not run here" in ask("__mirror_refusals", {**bare, "systemd": False})[0]

    @pytest.mark.parametrize("port", ["80", "5000", "3142", "15000", "13142"])
    def test_a_port_that_somebody_has(self, ask: Ask, bare: dict[str, Any], port: str) -> None:
        for owner, name in ((held("nginx.service"), "nginx"), (held(container="dify-nginx-1"), "dify-nginx-1")):
            bare["ports"] = {port: owner}
            (said,) = ask("__mirror_refusals", bare)
            assert f"Port {port} is taken by" in said and name in said
        bare["ports"] = {port: held("llmops-mirror-web.service")}
        assert ask("__mirror_refusals", bare) == []

    def test_a_port_that_is_not_wanted(self, ask: Ask, bare: dict[str, Any]) -> None:
        bare["ports"] = {"80": held(), "3142": held()}
        assert ask("__mirror_refusals", bare, mirror_port=8080, mirror_apt_port=0) == []

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"mirror_port": 5000}, "the same"),
            ({"mirror_home": "/srv"}, "mirror_home is /srv"),
            ({"mirror_home": "/home/me/mirror"}, "a folder for the mirror alone"),
            ({"mirror_home": "/srv/a b"}, "a folder for the mirror alone"),
            ({"mirror_home": "srv/mirror"}, "a folder for the mirror alone"),
            ({"mirror_apt_proxy": "http://me:secret@proxy:3128"}, "a login"),
        ],
    )
    def test_what_is_wanted_makes_no_sense(
        self, ask: Ask, bare: dict[str, Any], given: dict[str, Any], words: str
    ) -> None:
        (said,) = ask("__mirror_refusals", bare, **given)
        assert words in said and "secret" not in said


class TestFiles:
    def test_each_service_runs_what_it_is_given(self, ask: Ask) -> None:
        files = ask("__mirror_files", mirror_home="/data/mirror/")
        assert {f"units/{unit}.service" for unit in UNITS} < set(files)
        for name, text in files.items():
            assert "/data/mirror//" not in text, name
            if name.startswith("units/"):
                unit = configparser.ConfigParser(strict=False, interpolation=None)
                unit.read_string(text)
                assert unit["Install"]["WantedBy"] == "multi-user.target"
        assert "rootdirectory: /data/mirror/registry\n" in files["registry.yml"]
        assert "CacheDir: /data/mirror/apt\n" in files["apt/acng.conf"]
        assert files["marketplace.py"] == (ROLE / "files/marketplace.py").read_text()

    def test_only_the_front_is_reached_from_elsewhere(self, ask: Ask) -> None:
        files = ask("__mirror_files")
        assert "addr: 127.0.0.1:" in files["registry.yml"]
        assert "BindAddress: 127.0.0.1\n" in files["apt/acng.conf"]
        listening = [line.split()[1] for line in files["nginx.conf"].splitlines() if line.strip().startswith("listen")]
        assert listening == ["0.0.0.0:80", "0.0.0.0:5000", "0.0.0.0:3142"]

    @pytest.mark.parametrize(
        ("bind", "listens", "asked"),
        [
            ("10.0.0.5", "10.0.0.5:80 default_server;", "10.0.0.5"),
            ("::", "[::]:80 default_server ipv6only=off;", "127.0.0.1"),
            ("fd00::5", "[fd00::5]:80 default_server;", "[fd00::5]"),
        ],
    )
    def test_an_address_to_listen_at(self, ask: Ask, bind: str, listens: str, asked: str) -> None:
        assert f"listen {listens}" in ask("__mirror_files", mirror_bind=bind)["nginx.conf"]
        assert ask("__mirror_asked", mirror_bind=bind) == asked

    def test_no_cache_is_offered_that_is_not_there(self, ask: Ask) -> None:
        text = ask("__mirror_files", mirror_apt_port=0)["nginx.conf"]
        assert '"apt_port": 0' in text and "mirror_no_source" not in text

    def test_a_proxy_on_the_way_to_distribution_packages(self, ask: Ask) -> None:
        assert "\nProxy: http://p:3128\n" in ask("__mirror_files", mirror_apt_proxy="http://p:3128")["apt/acng.conf"]
        assert "Proxy" not in ask("__mirror_files")["apt/acng.conf"]


class TestFilling:
    def test_nothing_goes_while_a_host_was_not_seen(self, ask: Ask) -> None:
        """What it needs is not known: a run with --limit, or a host that is down."""
        for wanted, unseen, pruned in ((True, [], True), (True, ["gpu2"], False), (False, ["gpu2"], False)):
            needed = {"needs": [], "notes": [], "unseen": unseen}
            assert ask("__mirror_prune", mirror_prune=wanted, __mirror_needed=needed) is pruned
            said = ask("__mirror_unpruned", mirror_prune=wanted, __mirror_needed=needed)
            assert ("gpu2" in "".join(said)) is (wanted and not pruned)
        (fill,) = (one for task in tasks("fill") for one in task.get("block", ()) if "llmops.stack.mirror_store" in one)
        assert fill["llmops.stack.mirror_store"]["prune"] == "{{ __mirror_prune }}"

    def test_each_run_looks_anew(self) -> None:
        """Facts that are there before may be those of a cache, from before a GPU or another release."""
        (look,) = tasks("look")
        assert "when" not in look


class TestDue:
    """Which services are to be started is told by the host, and not by what this run has changed."""

    @pytest.fixture
    def due(self, ask: Ask, tmp_path: pathlib.Path) -> Callable[..., list[str]]:
        def due(down: str = "", disabled: str = "") -> list[str]:
            program = tmp_path / "bin/systemctl"
            program.parent.mkdir(exist_ok=True)
            program.write_text(
                "#!/bin/sh\n"
                f'case "$2 $3" in "is-active {down}"|"is-enabled {disabled}") exit 1;; esac\n'
                '[ "$1" = --quiet ]\n'
            )
            program.chmod(0o755)
            script = ask("__mirror_due_script", __mirror_etc=str(tmp_path / "etc")).replace("/run/", f"{tmp_path}/run/")
            done = subprocess.run(
                ["/bin/sh", "-c", script], capture_output=True, text=True, check=True,
                env={"PATH": f"{program.parent}:/usr/bin:/bin"},
            )  # fmt: skip
            assert done.stderr == ""
            return done.stdout.splitlines()

        for name in (
            "registry.yml",
            "apt/acng.conf",
            "marketplace.py",
            "nginx.conf",
            *(f"units/{u}.service" for u in UNITS),
        ):
            path = tmp_path / "etc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for unit in UNITS:
            (tmp_path / "run" / unit).mkdir(parents=True)
            (tmp_path / "run" / unit / "started").touch()
        return due

    def test_all_is_well(self, due: Callable[..., list[str]]) -> None:
        assert due() == []

    def test_nothing_has_run_yet(self, due: Callable[..., list[str]], tmp_path: pathlib.Path) -> None:
        for unit in UNITS:
            (tmp_path / "run" / unit / "started").unlink()
        assert due() == [f"{unit} restart" for unit in UNITS]

    def test_one_that_is_down_or_not_started_at_boot(self, due: Callable[..., list[str]]) -> None:
        assert due(down="llmops-mirror-apt") == ["llmops-mirror-apt restart"]
        assert due(disabled="llmops-mirror-web") == ["llmops-mirror-web enable"]

    @pytest.mark.parametrize(
        ("file", "wanted"),
        [
            ("nginx.conf", "llmops-mirror-web reload"),
            ("registry.yml", "llmops-mirror-registry restart"),
            ("apt/acng.conf", "llmops-mirror-apt restart"),
            ("marketplace.py", "llmops-mirror-market restart"),
            ("units/llmops-mirror-web.service", "llmops-mirror-web restart"),
        ],
    )
    def test_a_file_that_is_newer_than_the_last_start(
        self, due: Callable[..., list[str]], tmp_path: pathlib.Path, file: str, wanted: str
    ) -> None:
        (tmp_path / "etc" / file).write_text("new")
        assert due() == [wanted]

    def test_what_tasks_make_of_it(self, ask: Ask) -> None:
        lines = {"stdout_lines": ["llmops-mirror-web enable", "llmops-mirror-web restart", "llmops-mirror-apt reload"]}
        assert ask("__mirror_to_enable", __mirror_due=lines) == ["llmops-mirror-web"]
        assert ask("__mirror_to_start", __mirror_due=lines) == ["llmops-mirror-web restart", "llmops-mirror-apt reload"]
        assert ask("__mirror_to_start") == []
