"""Plugins of a workspace: names, packages, ways, words, and a console that plays every trick it is known for."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_plugin as manager
from ansible_collections.llmops.stack.plugins.module_utils import _dify_plugin_texts as texts
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_daemon import DaemonError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin import Options, PluginError, Plugins, Wish
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_daemon import PluginDaemon
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_market import Marketplace, MarketplaceError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import (
    Installed,
    Wanted,
    order_of,
    parse_name,
    parse_version,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_package import PackageError, read_package
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_plan import PlanError, pinned, plan, strategy_of
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_wishes import WishError, wishes_of
from ansible_collections.llmops.stack.plugins.module_utils._dify_preflight_console import console_refusals
from ansible_collections.llmops.stack.tests.unit.servers.scripted import Reply, Request, Scripted, as_json

OLLAMA = "langgenius/ollama"
OLD, NEW = "a" * 64, "b" * 64
TENANT = "11111111-1111-4111-8111-111111111111"
FULL = f"{OLLAMA}:0.1.0@{NEW}"


def entry(version: str = "0.0.6", checksum: str = OLD, source: str = "marketplace", **more: Any) -> dict[str, Any]:
    return {
        "plugin_id": OLLAMA,
        "plugin_unique_identifier": f"{OLLAMA}:{version}@{checksum}",
        "version": version,
        "checksum": checksum,
        "installation_id": "i-1",
        "source": source,
        "meta": {},
        "declaration": {"model": {"provider": "ollama"}},
        **more,
    }


class TestNames:
    def test_what_an_operator_may_write(self) -> None:
        assert parse_name(OLLAMA) == Wanted(OLLAMA)
        assert parse_name(f" {OLLAMA}:0.1.0 ") == Wanted(OLLAMA, "0.1.0")
        assert parse_name(FULL).identifier == FULL
        assert parse_version(f"1.2.3-rc1@{NEW}") == ("1.2.3-rc1", NEW)

    @pytest.mark.parametrize(
        "text",
        ["ollama", f"{OLLAMA}:latest", f"{OLLAMA}:v0.1.0", f"{OLLAMA}@{NEW}", "Langgenius/Ollama", f"{FULL}0", ""],
    )
    def test_what_is_no_name(self, text: str) -> None:
        with pytest.raises(ValueError, match="is no name of a plugin"):
            parse_name(text)

    def test_a_leading_v_is_no_version(self) -> None:
        with pytest.raises(ValueError, match="no leading v"):
            parse_version("v0.1.0")

    def test_versions_sort_by_number(self) -> None:
        known = ["0.10.0", "0.9.9", "0.10.0-rc1", "1.0"]
        assert sorted(known, key=order_of) == ["0.9.9", "0.10.0-rc1", "0.10.0", "1.0"]

    def test_an_entry_of_the_list(self) -> None:
        found = Installed.of(entry(declaration={"category": "", "model": {"provider": "ollama"}, "tool": None}))
        assert (found.plugin, found.category, found.provider) == (OLLAMA, "model", "ollama")
        assert found.identifier == f"{OLLAMA}:0.0.6@{OLD}"
        bare = Installed.of({"plugin_unique_identifier": FULL, "id": "i-2", "declaration": None, "meta": None})
        assert (bare.plugin, bare.version, bare.checksum, bare.installation) == (OLLAMA, "0.1.0", NEW, "i-2")
        assert Installed.of(entry(declaration={"endpoint": {"endpoints": []}})).category == "extension"

    def test_any_version_will_do_where_none_is_wanted(self) -> None:
        found = Installed.of(entry())
        assert Wanted(OLLAMA).is_met_by(found)
        assert Wanted(OLLAMA, "0.0.6").is_met_by(found)
        assert not Wanted(OLLAMA, "0.0.6", NEW).is_met_by(found)
        assert not Wanted("other/ollama").is_met_by(found)
        assert not Wanted(OLLAMA).is_met_by(None)


MANIFEST = "version: 0.1.0\ntype: plugin\nauthor: langgenius\nname: ollama\n"


class TestPackage:
    def pack(self, folder: Path, files: dict[str, str]) -> str:
        path = folder / "p.difypkg"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("provider/", "")
            for name, text in files.items():
                archive.writestr(name, text)
        return str(path)

    def test_its_name_is_made_of_its_content(self, tmp_path: Path) -> None:
        found = read_package(self.pack(tmp_path, {"manifest.yaml": MANIFEST, "main.py": "x", "Zeta.txt": ""}))
        whole = hashlib.sha256()
        for name, text in (("Zeta.txt", ""), ("main.py", "x"), ("manifest.yaml", MANIFEST)):
            whole.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(text.encode()).digest())
        assert found.wanted == Wanted(OLLAMA, "0.1.0", whole.hexdigest())

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({"main.py": ""}, "has no manifest.yaml"),
            ({"ollama/manifest.yaml": MANIFEST}, "inside a folder"),
            ({"manifest.yaml": "a: [b"}, "not valid YAML"),
            ({"manifest.yaml": "- a"}, "lacks author, name, version"),
            ({"manifest.yaml": MANIFEST.replace("0.1.0", "")}, "lacks version"),
            ({"manifest.yaml": MANIFEST.replace("0.1.0", "one")}, "is no name of a plugin"),
        ],
    )
    def test_what_is_none(self, tmp_path: Path, files: dict[str, str], said: str) -> None:
        with pytest.raises(PackageError, match=said):
            read_package(self.pack(tmp_path, files))

    def test_damaged_and_missing_files(self, tmp_path: Path) -> None:
        path = Path(self.pack(tmp_path, {"manifest.yaml": MANIFEST, "main.py": "x" * 500}))
        damaged = bytearray(path.read_bytes())
        damaged[damaged.index(b"x" * 20)] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(PackageError, match="damaged, or not whole"):
            read_package(str(path))
        with pytest.raises(PackageError, match="No such file"):
            read_package(str(tmp_path / "none"))


GITHUB = {"repo": "o/r", "release": "v1", "release_file": "p.difypkg"}


class TestWishes:
    def test_names_and_dictionaries_in_one_list(self, tmp_path: Path) -> None:
        path = TestPackage().pack(tmp_path, {"manifest.yaml": MANIFEST})
        found = wishes_of(
            [
                "other/one:1.0.0",
                {"plugin": "other/two", "version": "0.2.0", "state": "", "package": None, "pin": "no"},
                {"package": path},
                {"plugin": "other/three", **GITHUB, "state": "present"},
                {"plugin": "other/four", "source": "package", "state": "absent"},
            ],
            state="present",
            pin=True,
        )
        assert [one.wanted for one in found] == [
            Wanted("other/one", "1.0.0"),
            Wanted("other/two", "0.2.0"),
            Wanted(OLLAMA),
            Wanted("other/three"),
            Wanted("other/four"),
        ]
        assert [one.pin for one in found] == [True, False, True, True, True]
        assert [one.exact for one in found] == [True, True, True, False, False]
        assert found[2].package and found[2].package.wanted.version == "0.1.0"
        assert (found[3].repo, found[3].release, found[3].release_file) == ("o/r", "v1", "p.difypkg")
        assert wishes_of([]) == []

    def test_the_state_of_the_list_is_that_of_its_elements(self) -> None:
        found = wishes_of([OLLAMA, {"plugin": "other/one", "state": "present"}], state="latest")
        assert [one.state for one in found] == ["latest", "present"]

    @pytest.mark.parametrize(
        ("element", "said"),
        [
            (17, "17 is neither the name of a plugin, as in"),
            ({"plugin": OLLAMA, "versoin": "0.1.0"}, "versoin is no key of a plugin; there are plugin, plugin_version"),
            ({"plugin": OLLAMA, "version": "1.0.0", "plugin_version": "1.0.0"}, "leave one out"),
            ({"plugin": OLLAMA, "state": "gone"}, "state is gone, expected was one of present, latest, absent"),
            ({"plugin": OLLAMA, "source": "pypi"}, "source is pypi, expected was one of marketplace"),
            ({"plugin": OLLAMA, "source": ["package"]}, "source is .'package'., expected was a text"),
            ({"plugin": OLLAMA, "repo": "o/r"}, "source=github needs release, release_file"),
            (
                {"plugin": OLLAMA, "repo": "o/r", "source": "marketplace"},
                "repo goes with source=github, and source is marketplace",
            ),
            ({"plugin": OLLAMA, "package": "/x", "source": "github"}, "package goes with source=package"),
            ({"package": "/x", "repo": "o/r"}, "repo goes with source=github, and source is package"),
            ({"package": "/x", "state": "latest"}, "state=latest asks the marketplace, and source is package"),
            ({"package": "/x", "state": "absent"}, "only a package says it itself"),
            ({"plugin": f"{OLLAMA}:1.0.0", "state": "latest"}, "state=latest takes no version"),
            ({"plugin": f"{OLLAMA}:1.0.0", **GITHUB}, "the release decides: leave the version out"),
            ({"plugin": OLLAMA, "version": "1.0.0", **GITHUB}, "the release decides: leave the version out"),
            ({"plugin": OLLAMA, "version": "v1"}, "no leading v"),
            ({"plugin": OLLAMA, "version": 0.1}, "write it in quotes"),
            ({"plugin": OLLAMA, "source": "github", "repo": "o/r"}, "source=github needs release, release_file"),
            ({"version": "1.0.0"}, "a plugin has a name"),
            ({"plugin": OLLAMA, "pin": "perhaps"}, "pin is .perhaps., expected was true or false"),
        ],
    )
    def test_what_cannot_be_meant(self, element: Any, said: str) -> None:
        with pytest.raises(WishError, match=said):
            wishes_of([element])
        with pytest.raises(WishError, match=r"^Element 2 of plugins: "):
            wishes_of(["other/one", element])
        # The role says the same, before it touches anything.
        (sentence,) = console_refusals({"plugins": [element]})
        assert re.search(said, sentence)


class TestPlan:
    def test_ways(self) -> None:
        wanted = parse_name(FULL)

        def way(source: str, installed: str = "", daemon: bool = False, reinstall: bool = False) -> str:
            found = Installed.of(entry(source=installed)) if installed else None
            return plan(wanted, found, source, daemon, reinstall)

        assert way("package") == "install"
        assert way("marketplace", "marketplace", daemon=True) == "console"
        assert way("github", "github") == "console"
        # The console installs a package over another one, says success, and changes nothing.
        assert way("package", "package", daemon=True) == "daemon"
        assert way("marketplace", "package", daemon=True, reinstall=True) == "daemon"
        assert way("package", "marketplace", reinstall=True) == "reinstall"
        with pytest.raises(PlanError, match="plugin_daemon_key or secrets_file"):
            way("package", "package")
        with pytest.raises(PlanError, match="end the debugging session"):
            way("package", "remote", daemon=True, reinstall=True)


def settings(strategy: str, mode: str, exclude: list[str] | None = None, include: list[str] | None = None) -> Any:
    return {
        "strategy_setting": strategy,
        "upgrade_time_of_day": 71100,
        "upgrade_mode": mode,
        "exclude_plugins": exclude or [],
        "include_plugins": include or [],
    }


class TestPin:
    @pytest.mark.parametrize(
        "before",
        [
            settings("latest", "exclude", ["other/one"]),
            settings("latest", "all"),
            settings("fix_only", "partial", include=[OLLAMA, "other/one"]),
        ],
    )
    def test_a_pin_stops_the_upgrades_of_this_plugin_alone(self, before: dict[str, Any]) -> None:
        assert strategy_of(before, OLLAMA) != "disabled"
        after = pinned(before, OLLAMA, True)
        assert strategy_of(after, OLLAMA) == "disabled"
        assert strategy_of(after, "other/one") == strategy_of(before, "other/one")
        assert after["upgrade_time_of_day"] == 71100
        assert pinned(after, OLLAMA, True) == after
        back = pinned(after, OLLAMA, False)
        assert strategy_of(back, OLLAMA) == before["strategy_setting"]

    def test_upgrades_that_are_off_stay_off(self) -> None:
        off = settings("disabled", "exclude")
        assert pinned(off, OLLAMA, True) == pinned(off, OLLAMA, False) == off
        assert strategy_of(off, OLLAMA) == "disabled"


UV = (
    "failed to launch plugin: failed to install dependencies: failed to install dependencies: exit status 1, output: "
    "DEBUG Found system configuration in: /etc/uv/uv.toml\nDEBUG Searching for user configurat...(567 more)...: "
)


class TestWords:
    @pytest.mark.parametrize(
        ("text", "said", "advice"),
        [
            (
                UV
                + "No solution found when resolving dependencies\n  cause: Because no-such was not found in the package"
                " registry and you require no-such==9.9.9\n\nfailed to init environment",
                "Because no-such was not found in the package registry",
                "PIP_MIRROR_URL",
            ),
            (
                UV + "error: Failed to fetch: `https://index/simple/`\n  Caused by: tcp connect error\n",
                "tcp connect",
                "PIP_",
            ),
            (UV + "Caused by: invalid peer certificate: UnknownIssuer\n", "does not trust", "system-certs"),
            (
                "init environment for plugin langgenius/ollama:0.0.6 failed too many times, you should consider the "
                "package is corrupted or your network is unstable",
                "failed too many times",
                "read the log of plugin_daemon",
            ),
            (
                "failed to launch plugin: plugin failed to start: Traceback (most recent call last):\n  File x\n"
                "ModuleNotFoundError: No module named 'y'\n\n\n",
                "with: ModuleNotFoundError: No module named 'y'",
                "another one",
            ),
            (
                "failed to launch plugin: lock timeout\nfailed to acquire distributed env-init lock",
                "lock",
                "15 minutes",
            ),
            (
                "timed out on waiting for plugin to be ready after 2m0s, please contract the administrator",
                "2m0s",
                "too little memory",
            ),
            ("Failed to create plugin, perhaps it's already installed", "another version", "run this again"),
            ("", "gives no reason", "Read the log"),
            ("something new", "something new", "Read the log"),
        ],
    )
    def test_why_an_installation_failed(self, text: str, said: str, advice: str) -> None:
        found = texts.explain_task("langgenius/ollama 0.1.0", text)
        assert found.startswith("The installation of langgenius/ollama 0.1.0 failed: ")
        assert said in found
        assert advice in found
        assert "DEBUG" not in found
        assert "\n" not in found
        assert len(found) < 700

    def test_a_password_of_an_index_is_not_repeated(self) -> None:
        found = texts.explain_task("x", UV + "error: Failed to fetch: `https://me:hush@index/simple/`")
        assert "hush" not in found


class FakePlugins:
    """A console that does what it is told to do; `tasks` are the answers to polls, in turn."""

    available = True

    def __init__(self) -> None:
        self.list: list[dict[str, Any]] = []
        self.tasks: list[Any] = []
        self.after: list[dict[str, Any]] | None = None  # the list, once all tasks were told
        self.newest: dict[str, Any] = {}
        self.settings: dict[str, Any] | None = None
        self.done: list[tuple[Any, ...]] = []

    def installed(self) -> list[dict[str, Any]]:
        return self.list

    def task(self, task_id: str) -> Any:
        told = self.tasks.pop(0)
        if self.after is not None and not self.tasks:
            self.list = self.after
        if isinstance(told, Exception):
            raise told
        return told

    def latest(self, names: list[str]) -> dict[str, Any]:
        return self.newest

    def auto_upgrade(self, category: str) -> dict[str, Any] | None:
        return self.settings

    def set_auto_upgrade(self, new: dict[str, Any], category: str) -> None:
        self.settings = new
        self.done.append(("set_auto_upgrade", category))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.done.append((name, *arguments))
            return FULL if name.startswith("upload") else "task-1"

        return call


class FakeConsole:
    version = "1.12.1"
    tenant_id = TENANT

    def __init__(self) -> None:
        self.plugins = FakePlugins()

    def request(self, method: str, path: str, json: Any) -> dict[str, Any]:
        self.plugins.done.append((path, json))
        return {"task_id": "task-1"}


def state(status: str, message: str = "", identifier: str = FULL) -> dict[str, Any]:
    other = {"plugin_unique_identifier": "x", "message": "of another plugin"}
    return {"status": status, "plugins": [other, {"plugin_unique_identifier": identifier, "message": message}]}


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> FakeConsole:
    monkeypatch.setattr(manager, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(manager, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(manager, "RESTART_SECONDS", 0.05)
    return FakeConsole()


class Go:
    """One plugin; returns what became of it, and remembers whether that was a change."""

    def __init__(self, console: Any) -> None:
        self.console = console
        self.changed = False

    def __call__(self, name: str = FULL, **options: Any) -> manager.Item:
        of_one = {key: options.pop(key) for key in list(options) if key in Wish.__dataclass_fields__}
        options.setdefault("marketplace", Marketplace("http://127.0.0.1:1", 1))
        plugins = Plugins(self.console, Options(**options), lambda _text: None)
        plugins.run([Wish(parse_name(name), **of_one)])
        self.changed = plugins.changed
        return plugins.items[0]


@pytest.fixture
def go(console: FakeConsole) -> Go:
    return Go(console)


class TestManager:
    def test_an_installation_that_succeeded_and_did_nothing_is_a_failure(self, console: FakeConsole, go: Go) -> None:
        console.plugins.list = [entry()]
        console.plugins.tasks = [state("success", "installed")]
        item = go()
        assert console.plugins.done == [("upgrade", f"{OLLAMA}:0.0.6@{OLD}", FULL)]
        assert "the workspace still lists version 0.0.6" in item.error

    def test_a_task_that_vanishes_is_finished_if_the_plugin_is_there(self, console: FakeConsole, go: Go) -> None:
        console.plugins.tasks = [state("running", "starting"), None]
        console.plugins.after = [entry("0.1.0", NEW)]
        item = go()
        assert (item.error, item.action, item.version) == ("", "installed", "0.1.0")
        assert [one["message"] for one in item.progress] == ["starting"]

    def test_a_task_that_vanishes_and_leaves_nothing(self, console: FakeConsole, go: Go) -> None:
        console.plugins.tasks = [None, None, None]
        assert "does not list the plugin" in go().error

    def test_a_task_that_stays_for_ever(self, console: FakeConsole, go: Go) -> None:
        console.plugins.tasks = [state("running", "starting")] * 1000
        item = go(deadline=0.1)
        assert "still running (starting) after 0 s" in item.error
        assert "longer deadline" in item.error

    def test_the_daemon_restarts_under_a_poll(self, console: FakeConsole, go: Go) -> None:
        away = ConsoleError("daemon_down", "Failed to request plugin daemon", 400)
        console.plugins.tasks = [away, away, state("success", "installed")]
        console.plugins.after = [entry("0.1.0", NEW)]
        assert go().error == ""

    def test_the_daemon_stays_away(self, console: FakeConsole, go: Go) -> None:
        console.plugins.tasks = [ConsoleError("daemon_down", "Failed to request plugin daemon", 400)] * 1000
        assert go().error.startswith(f"{OLLAMA} 0.1.0: Failed to request plugin daemon.")

    def test_a_failed_task_is_explained(self, console: FakeConsole, go: Go) -> None:
        console.plugins.tasks = [state("failed", UV + "error: dns error\n")]
        item = go()
        assert "cannot reach the package index" in item.error
        assert item.progress[0]["status"] == "failed"

    def test_an_earlier_run_was_faster(self, console: FakeConsole, go: Go) -> None:
        told = "failed to install plugin, perhaps it's already installed"
        console.plugins.tasks = [state("running"), state("failed", told)]
        console.plugins.after = [entry("0.1.0", NEW)]
        assert (go().error, go().version) == ("", "0.1.0")
        # The same words, and another version is there.
        console.plugins.list, console.plugins.after = [], [entry()]
        console.plugins.tasks = [state("failed", told)]
        assert "another version of the plugin is installed" in go().error

    def test_an_uninstallation_that_does_nothing(self, console: FakeConsole, go: Go) -> None:
        console.plugins.list = [entry()]
        assert "lists it still" in go(OLLAMA, state="absent").error

    def test_no_plugins_before_1_0(self, console: FakeConsole, go: Go) -> None:
        console.plugins.available = False
        console.version = "0.15.3"
        with pytest.raises(PluginError, match=r"Dify 0.15.3 has no plugins"):
            go()
        assert go(state="absent").action == "none"

    def test_a_release_on_github_is_known_by_its_name(self, console: FakeConsole, go: Go) -> None:
        github = {"source": "github", "repo": "o/r", "release": "v0.1.0", "release_file": "p.difypkg"}
        meta = {"repo": "o/r", "version": "v0.1.0", "package": "p.difypkg"}
        assert go(OLLAMA, **github, check=True).action == "installed"
        assert console.plugins.done == []
        console.plugins.tasks = [state("success", "installed")]
        console.plugins.after = [entry("0.1.0", NEW, "github", meta=meta)]
        assert go(OLLAMA, **github).action == "installed"
        assert [one[0] for one in console.plugins.done] == ["upload_github", "install_github"]
        console.plugins.done.clear()
        assert [go(OLLAMA, **github, check=check).action for check in (True, False)] == ["none", "none"]
        assert console.plugins.done == []
        # Another release goes by the console's own upgrade.
        console.plugins.list = [entry(source="github", meta={**meta, "version": "v0.0.6"})]
        console.plugins.tasks = [state("success", "upgraded")]
        assert go(OLLAMA, **github).action == "upgraded"
        assert console.plugins.done[1][0] == "upgrade_github"
        assert FULL in console.plugins.done[1]

    def test_github_out_of_reach(self, console: FakeConsole, go: Go) -> None:
        def refuse(*unused: str) -> str:
            raise ConsoleError("marketplace", "Reached maximum retries (3) for URL https://github.com/o/r", 400)

        console.plugins.__dict__["upload_github"] = refuse
        item = go(OLLAMA, source="github", repo="o/r", release="v1", release_file="p.difypkg")
        assert "source=package" in item.error
        assert "MARKETPLACE_API_URL" not in item.error

    @pytest.mark.parametrize(
        ("source", "text", "said"),
        [
            ("marketplace", "file not found", "MARKETPLACE_API_URL (dify_marketplace_url), has no such package"),
            ("marketplace", "Max file size reached", "Raise PLUGIN_MAX_PACKAGE_SIZE of api and plugin_daemon"),
            ("github", "Max file size reached", "Raise PLUGIN_MAX_PACKAGE_SIZE of api and plugin_daemon"),
            ("github", "file not found", "see that repo, release and release_file are right"),
        ],
    )
    def test_a_package_that_dify_does_not_get(
        self, console: FakeConsole, go: Go, source: str, text: str, said: str
    ) -> None:
        def refuse(*unused: str) -> str:
            raise ConsoleError("invalid", text, 400, what="POST install")

        for name in ("upload_github", "install"):
            console.plugins.__dict__[name] = refuse
        item = go(FULL, source=source, repo="o/r", release="v1", release_file="p.difypkg")
        assert item.error.startswith(f"{OLLAMA} 0.1.0: Dify cannot fetch the package: {text}. ")
        assert said in item.error

    def test_latest_never_goes_back_and_never_guesses(self, console: FakeConsole, go: Go) -> None:
        console.plugins.list = [entry("0.2.0", source="package")]
        console.plugins.newest = {OLLAMA: {"version": "0.1.0", "unique_identifier": FULL}}
        assert go(OLLAMA, state="latest").action == "none"
        # An empty answer says nothing of what is the latest.
        console.plugins.newest = {}
        assert "cannot be asked" in go(OLLAMA, state="latest").error

    def test_a_pin_only_where_it_is_needed(self, console: FakeConsole, go: Go) -> None:
        console.plugins.list = [entry("0.1.0", NEW)]
        console.plugins.settings = settings("latest", "exclude")
        assert (go(OLLAMA).pinned, go.changed) == (False, False)
        assert (go(check=True).pinned, go.changed, console.plugins.done) == (True, True, [])
        assert go().pinned is True
        assert console.plugins.done == [("set_auto_upgrade", "model")]
        assert (go().auto_upgrade, go.changed) == ("disabled", False)
        # They reach only plugins of the marketplace.
        console.plugins.list = [entry("0.1.0", NEW, "package")]
        console.plugins.settings = settings("latest", "exclude")
        assert (go().auto_upgrade, go.changed) == ("", False)

    def test_a_package_is_one_version_and_pinned(self, console: FakeConsole, go: Go, tmp_path: Path) -> None:
        package = read_package(TestPackage().pack(tmp_path, {"manifest.yaml": MANIFEST}))
        console.plugins.list = [entry("0.1.0", package.wanted.checksum)]
        console.plugins.settings = settings("latest", "exclude")
        assert go(OLLAMA, source="package", package=package).pinned is True

    def test_what_goes_while_another_is_installed_is_noticed(self, console: Any) -> None:
        console.plugins.list = [entry("0.1.0", NEW)]
        other = entry(plugin_id="other/one", plugin_unique_identifier=f"other/one:1.0.0@{NEW}", version="1.0.0")
        console.plugins.tasks = [state("success", "installed", f"other/one:1.0.0@{NEW}")]
        console.plugins.after = [{**other, "checksum": NEW}]
        plugins = Plugins(console, Options(Marketplace("http://127.0.0.1:1", 1)), print)
        plugins.run([Wish(parse_name(OLLAMA)), Wish(parse_name(f"other/one:1.0.0@{NEW}"))])
        assert "the workspace does not list the plugin" in plugins.items[0].error
        assert (plugins.items[1].error, plugins.items[1].verified) == ("", "listed")

    def test_one_that_fails_does_not_keep_the_others_back(self, console: Any) -> None:
        console.plugins.tasks = [state("failed", "x", f"other/one:1.0.0@{NEW}")]
        console.plugins.list = [entry("0.1.0", NEW)]
        plugins = Plugins(console, Options(Marketplace("http://127.0.0.1:1", 1)), print)
        plugins.run([Wish(parse_name(f"other/one:1.0.0@{NEW}")), Wish(parse_name(OLLAMA))])
        assert [bool(one.error) for one in plugins.items] == [True, False]
        assert plugins.items[1].verified == "listed"


@pytest.fixture
def daemon() -> Iterator[tuple[PluginDaemon, list[Reply], Scripted]]:
    """A plugin daemon that gives these replies in turn, the last one again and again."""
    replies: list[Reply] = []

    def answer(_request: Request) -> Reply:
        return replies.pop(0) if len(replies) > 1 else replies[0]

    with Scripted(answer).running() as server:
        yield PluginDaemon(server.url, "the-key", 1.0), replies, server


def failure(code: int, message: str, kind: str = "PluginDaemonInternalServerError", status: int = 200) -> Reply:
    inner = json.dumps({"message": message, "error_type": kind, "args": None})
    return as_json({"code": code, "message": inner, "data": None}, status)


NO_NODE = failure(-500, "no available node, plugin runtime not found", status=404)
ALIVE = as_json({"code": 0, "message": "success", "data": {"result": True}})


class TestDaemon:
    def test_an_upgrade_keeps_the_source(self, daemon: Any) -> None:
        client, replies, server = daemon
        replies.append(as_json({"code": 0, "message": "success", "data": {"all_installed": False, "task_id": "t-1"}}))
        found = Installed.of(entry(source="package"))
        assert client.upgrade(TENANT, found, parse_name(FULL)) == "t-1"
        (request,) = server.requests
        assert request.path == f"/plugin/{TENANT}/management/install/upgrade"
        assert request.headers["x-api-key"] == "the-key"
        assert request.json() == {
            "original_plugin_unique_identifier": found.identifier,
            "new_plugin_unique_identifier": FULL,
            "source": "package",
            "meta": {},
        }
        replies[:] = [failure(-404, "plugin installation not found for this tenant")]
        with pytest.raises(DaemonError):
            client.upgrade(TENANT, found, parse_name(FULL))

    def test_a_process_that_comes_some_seconds_later(self, daemon: Any, console: FakeConsole, go: Go) -> None:
        client, replies, _server = daemon
        console.plugins.list = [entry("0.1.0", NEW)]
        replies += [NO_NODE, NO_NODE, ALIVE]
        item = go(verify="process", daemon=client)
        assert (item.error, item.verified) == ("", "process")

    def test_a_process_that_never_comes(self, daemon: Any, console: FakeConsole, go: Go) -> None:
        client, replies, _server = daemon
        console.plugins.list = [entry("0.1.0", NEW)]
        replies.append(NO_NODE)
        item = go(verify="process", daemon=client, process_timeout=0.1)
        assert item.error.startswith(f"{OLLAMA} 0.1.0 is listed, but the plugin is installed but its process was never")
        assert item.verified == "listed"

    def test_a_refused_key_is_not_waited_for(self, daemon: Any, console: FakeConsole, go: Go) -> None:
        client, replies, server = daemon
        console.plugins.list = [entry("0.1.0", NEW)]
        replies.append(failure(-401, "unauthorized", "PluginDaemonUnauthorizedError", 401))
        assert "PLUGIN_DAEMON_KEY" in go(verify="process", daemon=client).error
        assert len(server.requests) == 1

    def test_a_plugin_that_refuses_empty_credentials_is_alive(self, daemon: Any, console: FakeConsole, go: Go) -> None:
        client, replies, _server = daemon
        console.plugins.list = [entry("0.1.0", NEW)]
        inner = json.dumps({"error_type": "CredentialsValidateFailedError", "message": "no key", "args": {}})
        replies.append(failure(-500, inner, "PluginInvokeError"))
        assert go(verify="process", daemon=client).verified == "process"

    def test_a_tool_cannot_be_asked(self, daemon: Any, console: FakeConsole, go: Go) -> None:
        client, _replies, server = daemon
        console.plugins.list = [entry("0.1.0", NEW, declaration={"tool": {"identity": {}}})]
        assert go(verify="process", daemon=client).verified == "listed"
        assert server.requests == []

    def test_a_daemon_that_is_not_published(self, console: FakeConsole, go: Go) -> None:
        console.plugins.list = [entry("0.1.0", NEW)]
        client = PluginDaemon("http://127.0.0.1:1", "the-key", 1.0)
        item = go(verify="process", daemon=client, process_timeout=0.1)
        assert "port 5002, which stock compose files do not publish" in item.error


class TestMarketplace:
    def versions(self, *identifiers: str) -> Reply:
        return as_json({"code": 0, "data": {"versions": [{"unique_identifier": one} for one in identifiers]}})

    def test_the_newest_and_a_given_one(self) -> None:
        reply = self.versions(f"{OLLAMA}:0.9.0@{OLD}", f"{OLLAMA}:0.10.0@{NEW}")
        with Scripted(lambda request: reply).running() as server:
            market = Marketplace(server.url + "/", 5)
            assert market.find(Wanted(OLLAMA)).version == "0.10.0"
            assert market.find(Wanted(OLLAMA, "0.9.0")).checksum == OLD
            assert server.requests[0].path == f"/api/v1/plugins/{OLLAMA}/versions"
            with pytest.raises(MarketplaceError, match=r"it has 0\.9\.0, 0\.10\.0"):
                market.find(Wanted(OLLAMA, "1.0.0"))

    @pytest.mark.parametrize(
        ("reply", "said"),
        [
            (Reply(404, ""), "HTTP 404"),
            (Reply(502, "<html>"), "answered HTTP 502"),
            (Reply(200, "<html>a portal</html>"), "does not list the versions"),
            (as_json({"data": {"versions": []}}), "has no version of"),
            (Reply(hang=True), "did not send|ReadTimeout"),
        ],
    )
    def test_what_is_no_answer(self, reply: Reply, said: str) -> None:
        with (
            Scripted(lambda request: reply).running() as server,
            pytest.raises(MarketplaceError, match=said),
        ):
            Marketplace(server.url, 0.3).find(Wanted(OLLAMA))


class TestModule:
    """Options that cannot be right are refused before anything is asked."""

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"url": "dify.example.com", "plugin": OLLAMA}, "url must begin with http"),
            ({}, "plugin is missing: a plugin has a name"),
            ({"plugin": "ollama"}, "is no name of a plugin"),
            ({"plugin": OLLAMA, "plugin_version": "v1"}, "no leading v"),
            ({"plugins": [OLLAMA], "plugin_version": "0.1.0"}, "use plugin"),
            ({"plugins": [OLLAMA], "source": "github"}, "into the elements of plugins"),
            ({"plugins": [OLLAMA], "plugin": OLLAMA}, "mutually exclusive"),
            ({"plugins": [{"plugin": OLLAMA}, {"source": "package"}]}, "Element 2 of plugins: source=package needs"),
            ({"plugins": [{"source": "package", "package": "/nowhere.difypkg"}]}, "cannot be read on the managed host"),
            ({"plugins": [OLLAMA, f"{OLLAMA}:0.1.0"]}, "listed twice"),
            ({"plugin": f"{OLLAMA}:0.1.0", "state": "latest"}, "takes no version"),
            (
                {"plugin": OLLAMA, "source": "package", "state": "latest", "package": "/x"},
                "asks the marketplace, and source is package",
            ),
            ({"plugin": OLLAMA, "source": "package"}, "source=package needs package"),
            ({"source": "package", "package": "/nowhere.difypkg"}, "cannot be read on the managed host"),
            ({"plugin": OLLAMA, "source": "github", "repo": "o/r"}, "release"),
            ({"plugin": OLLAMA, "verify": "process"}, "plugin_daemon_key"),
            ({"plugin": OLLAMA, "verify": "process", "secrets_file": "/nowhere.json"}, "plugin_daemon_key"),
            ({"plugin": OLLAMA, "deadline": 0}, "deadline must be greater than 0"),
        ],
    )
    def test_refused(self, run_module: Any, failed: type[Exception], options: dict[str, Any], said: str) -> None:
        account = {"url": "http://127.0.0.1:1", "email": "a@example.com", "password": "Passw0rd!x"}
        with pytest.raises(failed, match=said):
            run_module("dify_plugin", **{**account, **options})

    def test_no_plugins_is_nothing_to_do(self, run_module: Any) -> None:
        account = {"url": "http://127.0.0.1:1", "email": "a@example.com", "password": "Passw0rd!x"}
        assert run_module("dify_plugin", **account, plugins=[])["changed"] is False

    def test_the_package_of_another_plugin(self, run_module: Any, failed: type[Exception], tmp_path: Path) -> None:
        path = TestPackage().pack(tmp_path, {"manifest.yaml": MANIFEST})
        options = {"source": "package", "package": path, "email": "a@example.com", "password": "Passw0rd!x"}
        for wrong in ({"plugin": "langgenius/openai"}, {"plugin": OLLAMA, "plugin_version": "0.2.0"}):
            with pytest.raises(failed, match=r"is langgenius/ollama 0\.1\.0, expected was"):
                run_module("dify_plugin", **options, **wrong)
