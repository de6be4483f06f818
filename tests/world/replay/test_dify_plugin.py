# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module dify_plugin against the stand-ins of API and plugin daemon, release by release, with every known trap."""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import console_pair
import console_run
import harness_daemon as harness
import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _dify_plugin
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import Console
from console_pair import Pair
from market import Market
from standin import daemon_package
from standin.daemon_package import pack

OLLAMA = "langgenius/ollama"
Run = Callable[..., dict[str, Any]]


def content(version: str, **options: Any) -> bytes:
    return pack(OLLAMA, version, **options)


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    market = Market(OLLAMA)
    yield market
    market.close()


@pytest.fixture(scope="module", params=console_pair.WITH_DAEMON)
def place(
    request: pytest.FixtureRequest,
    postgres: Any,
    redis_server: Any,
    market: Market,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp(f"plugin-{request.param}")
    addresses = {"MARKETPLACE_API_URL": market.url, "STANDIN_GITHUB_URL": market.url}
    with console_pair.running(request.param, postgres, redis_server, directory, 57, **addresses) as pair:
        pair.set_up()
        yield pair


@pytest.fixture
def pair(place: Pair) -> Iterator[Pair]:
    """Nothing installed."""
    console = place.console()
    for one in console.plugins.installed():
        console.plugins.uninstall(one["installation_id"])
    yield place


@pytest.fixture
def daemon(pair: Pair) -> harness.Daemon:
    assert pair.daemon is not None
    return pair.daemon


@pytest.fixture
def run(
    pair: Pair, market: Market, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    monkeypatch.setattr(_dify_plugin, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(_dify_plugin, "SETTLE_SECONDS", 0.5)
    return runner(pair, market.url, capsys, tmp_path)


def runner(pair: Pair, market_url: str, capsys: pytest.CaptureFixture[str], folder: Path) -> Run:
    secrets = folder / "secrets.json"
    secrets.write_text(json.dumps({"PLUGIN_DAEMON_KEY": harness.KEY}))
    common: dict[str, Any] = {
        "url": pair.url,
        "email": console_pair.EMAIL,
        "password": console_pair.PASSWORD,
        "marketplace_url": market_url,
        "deadline": 30,
    }
    if pair.daemon:
        common |= {"plugin_daemon_url": pair.daemon.url, "secrets_file": str(secrets)}

    start = console_run.runner(capsys)

    def call(check: bool = False, **options: Any) -> dict[str, Any]:
        given = {name: value for name, value in {**common, **options}.items() if value is not None}
        result = start("dify_plugin", check=check, **given)
        shown = json.dumps(result)
        assert not any(text in shown for text in (console_pair.PASSWORD, harness.KEY, "Bearer", "csrf", "access_token"))
        return result

    return call


def silent(pair: Pair) -> bool:
    """Daemons before 0.5: a reason is only in their log, and calls to a dead process get no answer."""
    return pair.daemon is not None and pair.daemon.version < "0.5"


def file(folder: Path, version: str, **options: Any) -> str:
    path = folder / f"ollama-{version}-{uuid.uuid4().hex[:6]}.difypkg"
    path.write_bytes(content(version, **options))
    return str(path)


def listed(pair: Pair) -> list[tuple[str, str]]:
    return [(one["version"], one["source"]) for one in pair.console().plugins.installed()]


def wait(console: Console, task: str) -> dict[str, Any]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = console.plugins.task(task) or {}
        if found.get("status") in ("success", "failed"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"task still {found}")


def test_a_package_is_installed_once_and_removed_once(pair: Pair, run: Run, tmp_path: Path) -> None:
    wanted = {"source": "package", "package": file(tmp_path, "0.0.6"), "verify": "process"}
    before = run(check=True, **wanted)
    assert (before["changed"], before["plugins"][0]["action"], listed(pair)) == (True, "installed", [])
    done = run(**wanted)
    (one,) = done["plugins"]
    assert done["changed"] is True
    assert (one["action"], one["verified"], one["version"], one["source"]) == (
        "installed",
        "process",
        "0.0.6",
        "package",
    )
    # What check mode said is what the daemon says.
    assert one["identifier"] == before["plugins"][0]["identifier"]
    assert done["diff"] == {"before": {OLLAMA: "absent"}, "after": {OLLAMA: "0.0.6 (package)"}}
    assert one["progress"][-1]["status"] == "success"
    for check in (True, False):
        again = run(check=check, **wanted)
        assert (again["changed"], again["plugins"][0]["action"]) == (False, "none")
        assert again["plugins"][0]["verified"] == "process"
        # Any version will do where none is wanted, and nobody is asked for one.
        assert run(check=check, plugin=OLLAMA)["changed"] is False
    gone = run(check=True, plugin=OLLAMA, state="absent")
    assert (gone["changed"], len(listed(pair))) == (True, 1)
    gone = run(plugin=OLLAMA, state="absent")
    assert (gone["changed"], gone["plugins"][0]["action"], listed(pair)) == (True, "uninstalled", [])
    assert [run(check=check, plugin=OLLAMA, state="absent")["changed"] for check in (True, False)] == [False, False]


def test_a_newer_package_is_no_upgrade_until_the_daemon_does_it(pair: Pair, run: Run, tmp_path: Path) -> None:
    run(source="package", package=file(tmp_path, "0.0.6"))
    console = pair.console()
    (before,) = console.plugins.installed()
    newer = file(tmp_path, "0.1.0")
    # The trap itself: the console's installation changes nothing, and newer daemons call that a success.
    task = console.plugins.install(console.plugins.upload("p.difypkg", Path(newer).read_bytes()))
    assert wait(console, task)["status"] == ("failed" if silent(pair) else "success")
    assert listed(pair) == [("0.0.6", "package")]
    refused = run(source="package", package=newer, secrets_file=None)
    assert refused["failed"] is True
    assert "console cannot replace it by 0.1.0 from a package" in refused["msg"]
    assert "Give plugin_daemon_url" in refused["msg"]
    assert listed(pair) == [("0.0.6", "package")]
    assert run(check=True, source="package", package=newer)["plugins"][0]["action"] == "upgraded"
    done = run(source="package", package=newer, verify="process")
    (one,) = done["plugins"]
    assert (one["action"], one["previous_version"], one["version"]) == ("upgraded", "0.0.6", "0.1.0")
    assert one["verified"] == "process"
    (after,) = console.plugins.installed()
    assert (after["installation_id"], after["source"]) == (before["installation_id"], "package")
    assert run(source="package", package=newer)["changed"] is False


@console_pair.on("1.12.1", fixture="place")
def test_without_the_key_an_upgrade_is_a_reinstallation_if_that_is_allowed(
    pair: Pair, run: Run, tmp_path: Path
) -> None:
    run(source="package", package=file(tmp_path, "0.0.6"))
    done = run(source="package", package=file(tmp_path, "0.1.0"), secrets_file=None, reinstall=True)
    assert (done["plugins"][0]["action"], listed(pair)) == ("reinstalled", [("0.1.0", "package")])


def test_the_marketplace_by_exact_version_and_by_the_latest(pair: Pair, run: Run, market: Market) -> None:
    market.offer(content("0.0.6"), content("0.1.0"))
    wanted = {"plugin": OLLAMA, "plugin_version": "0.0.6", "verify": "process"}
    assert run(check=True, **wanted)["plugins"][0]["action"] == "installed"
    done = run(**wanted)
    (one,) = done["plugins"]
    assert (one["action"], one["verified"], listed(pair)) == ("installed", "process", [("0.0.6", "marketplace")])
    # Given a version, it is taken out of Dify's own upgrades.
    assert (one["pinned"], one["auto_upgrade"]) == (True, "disabled")
    assert pair.console().plugins.auto_upgrade()["exclude_plugins"] == [OLLAMA]
    assert "warnings" not in done
    market.asked.clear()
    assert [run(check=check, **wanted)["changed"] for check in (True, False)] == [False, False]
    assert market.asked == []
    latest = {"plugins": [OLLAMA], "state": "latest", "verify": "process"}
    assert run(check=True, **latest)["plugins"][0]["action"] == "upgraded"
    done = run(**latest)
    assert (done["plugins"][0]["action"], listed(pair)) == ("upgraded", [("0.1.0", "marketplace")])
    assert [run(check=check, **latest)["changed"] for check in (True, False)] == [False, False]
    # Down again, and back into the automatic upgrades.
    down = run(plugin=f"{OLLAMA}:0.0.6", pin=False, verify="process")
    strategy = "latest" if pair.release == "1.16.0" else "fix_only"
    assert (down["plugins"][0]["version"], down["plugins"][0]["auto_upgrade"]) == ("0.0.6", strategy)
    assert pair.console().plugins.auto_upgrade()["exclude_plugins"] == []
    run(plugin=OLLAMA, state="absent")
    said = run(plugin=OLLAMA)["warnings"]
    assert f"Dify upgrades {OLLAMA} by itself ({strategy}), so version 0.1.0 will not stay" in str(said)


@console_pair.on("1.16.0", fixture="place")
def test_a_plugin_from_a_package_goes_to_a_version_of_the_marketplace(
    pair: Pair, run: Run, market: Market, tmp_path: Path
) -> None:
    market.offer(content("0.0.6"), content("0.1.0"))
    run(source="package", package=file(tmp_path, "0.0.6"))
    done = run(plugin=OLLAMA, plugin_version="0.1.0", verify="process")
    assert (done["plugins"][0]["action"], listed(pair)) == ("upgraded", [("0.1.0", "package")])
    assert run(plugin=OLLAMA, plugin_version="0.1.0")["changed"] is False


def test_a_marketplace_without_the_version_or_out_of_reach(pair: Pair, run: Run, market: Market) -> None:
    market.offer(content("0.0.6"))
    result = run(plugin=OLLAMA, plugin_version="9.9.9")
    assert f"has no version 9.9.9 of {OLLAMA}; it has 0.0.6" in result["msg"]
    result = run(plugin=OLLAMA, plugin_version="9.9.9", marketplace_url="http://127.0.0.1:1")
    assert "cannot be asked for the versions of langgenius/ollama" in result["msg"]
    assert "Set marketplace_url to a marketplace that the managed host reaches" in result["msg"]
    # A whole identifier needs no look-up, and Dify says what is wrong.
    lacking = run(plugin=f"{OLLAMA}:0.0.9@{'a' * 64}")
    assert "file not found. The marketplace that api asks, MARKETPLACE_API_URL" in lacking["msg"]
    market.status = 503
    try:
        asked, down = run(plugin=OLLAMA), run(plugin=f"{OLLAMA}:0.0.9@{'a' * 64}")
    finally:
        market.status = 200
    assert "answered HTTP 503 when asked for the versions of langgenius/ollama. Set marketplace_url" in asked["msg"]
    assert "Reached maximum retries (3) for URL" in down["msg"]
    assert "point MARKETPLACE_API_URL (dify_marketplace_url) at a mirror that it reaches" in down["msg"]
    assert listed(pair) == []


def test_several_plugins_with_one_login(
    pair: Pair, run: Run, market: Market, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logins: list[str] = []
    log_in = Console._log_in

    def counted(console: Console) -> None:
        logins.append(console.url)
        log_in(console)

    monkeypatch.setattr(Console, "_log_in", counted)
    market.offer(content("0.0.6"), content("0.1.0"))
    market.release("o/third", "v2.0.0", "third.difypkg", pack("example/third", "2.0.0", provider="third"))
    second = tmp_path / "second.difypkg"
    second.write_bytes(pack("example/second", "1.0.0", provider="second"))
    github = {"source": "github", "repo": "o/third", "release": "v2.0.0", "release_file": "third.difypkg"}
    wanted: list[Any] = [
        f"{OLLAMA}:0.0.6",
        {"source": "package", "package": str(second)},
        {"plugin": "example/third", **github, "state": ""},
    ]
    shared = {"session_file": str(tmp_path / "session"), "verify": "process"}
    done = run(plugins=wanted, **shared)
    assert done.get("msg", "") == ""
    assert len(logins) == 1
    assert [(one["plugin"], one["action"], one["source"], one["verified"]) for one in done["plugins"]] == [
        (OLLAMA, "installed", "marketplace", "process"),
        ("example/second", "installed", "package", "process"),
        ("example/third", "installed", "github", "process"),
    ]
    for check in (True, False):
        again = run(check=check, plugins=wanted, **shared)
        assert (again["changed"], [one["verified"] for one in again["plugins"]]) == (False, ["process"] * 3)
    assert len(logins) == 1
    # One that cannot be had does not keep the others back, and the run fails with its reason alone.
    market.status = 404
    try:
        mixed = run(plugins=[f"{OLLAMA}:0.1.0", {"plugin": "example/second", "state": "absent"}], **shared)
    finally:
        market.status = 200
    assert mixed["failed"] is True
    assert mixed["msg"].count(OLLAMA) == mixed["msg"].count("HTTP 404") == 1
    assert [one["action"] for one in mixed["plugins"]] == ["none", "uninstalled"]
    gone = run(plugins=[OLLAMA, "example/second", "example/third"], state="absent", **shared)
    assert [one["action"] for one in gone["plugins"]] == ["uninstalled", "none", "uninstalled"]
    assert len(logins) == 1
    assert listed(pair) == []


def test_a_release_on_github_and_the_next_one(pair: Pair, run: Run, market: Market) -> None:
    for tag, version in (("v0.0.6", "0.0.6"), ("v0.1.0", "0.1.0")):
        market.release("o/ollama", tag, "p.difypkg", content(version))
    wanted = {"plugin": OLLAMA, "source": "github", "repo": "o/ollama", "release_file": "p.difypkg"}
    done = run(release="v0.0.6", **wanted)
    assert (done["plugins"][0]["action"], listed(pair)) == ("installed", [("0.0.6", "github")])
    assert [run(check=check, release="v0.0.6", **wanted)["changed"] for check in (True, False)] == [False, False]
    # The console has an upgrade for these: no key of the daemon is needed.
    done = run(release="v0.1.0", **wanted, secrets_file=None)
    assert (done["plugins"][0]["action"], listed(pair)) == ("upgraded", [("0.1.0", "github")])
    assert run(release="v0.1.0", **wanted)["changed"] is False
    lacking = run(release="v9", **wanted)
    assert "file not found. The api container cannot fetch the package from GitHub" in lacking["msg"]


def test_a_lost_file_is_found_and_put_back(pair: Pair, daemon: harness.Daemon, run: Run, tmp_path: Path) -> None:
    wanted = {"source": "package", "package": file(tmp_path, "0.0.6"), "verify": "process", "process_timeout": 8}
    run(**wanted)
    (stored,) = (path for path in (daemon.storage / "plugin").rglob("*@*") if path.is_file())
    stored.unlink()
    daemon.restart()
    # Everything lists it, and another installation says that all is installed.
    assert listed(pair) == [("0.0.6", "package")]
    console = pair.console()
    assert console.plugins.install(console.plugins.installed()[0]["plugin_unique_identifier"]) == ""
    assert run(plugin=OLLAMA)["changed"] is False
    result = run(**{**wanted, "process_timeout": 1.5})
    assert result["failed"] is True
    assert f"{OLLAMA} 0.0.6 is listed, but " in result["msg"]
    assert result["plugins"][0]["verified"] == "listed"
    assert (
        run(check=True, **{**wanted, "process_timeout": 1.5}, reinstall=True)["plugins"][0]["action"] == "reinstalled"
    )
    done = run(**{**wanted, "process_timeout": 1.5}, reinstall=True)
    assert (done["plugins"][0]["action"], done["plugins"][0]["verified"]) == ("reinstalled", "process")
    assert run(**wanted)["changed"] is False


def test_a_storage_that_was_lost_is_filled_again(
    pair: Pair, daemon: harness.Daemon, run: Run, market: Market, tmp_path: Path
) -> None:
    """Dify fetches no package whose manifest the daemon remembers: reinstalled by Dify alone, it would be gone."""
    market.offer(content("0.0.6"))
    wanted = {"plugin": OLLAMA, "plugin_version": "0.0.6", "verify": "process", "process_timeout": 1.5}
    run(**wanted)
    for folder in ("plugin", "plugin_packages"):
        shutil.rmtree(daemon.storage / folder, ignore_errors=True)
    daemon.restart()
    out_of_reach = run(**wanted, reinstall=True, marketplace_url="http://127.0.0.1:1")
    assert "cannot be asked for the package of langgenius/ollama 0.0.6" in out_of_reach["msg"]
    # What cannot be had again is not taken away.
    assert listed(pair) == [("0.0.6", "marketplace")]
    done = run(**wanted, reinstall=True)
    assert (done["plugins"][0]["action"], done["plugins"][0]["verified"]) == ("reinstalled", "process")
    assert listed(pair) == [("0.0.6", "marketplace")]
    # Removed, lost and wanted again.
    run(plugin=OLLAMA, state="absent")
    for folder in ("plugin", "plugin_packages"):
        shutil.rmtree(daemon.storage / folder, ignore_errors=True)
    again = run(**wanted)
    assert again["plugins"][0]["verified"] == "process", again["msg"]


def test_old_tasks_are_none_of_its_business(pair: Pair, daemon: harness.Daemon, run: Run, tmp_path: Path) -> None:
    path = file(tmp_path, "0.0.6")
    identifier = daemon_package.read(Path(path).read_bytes()).identifier
    plugins = [{"plugin_unique_identifier": identifier, "plugin_id": OLLAMA, "status": "", "message": "old"}]
    for status in ("failed", "success", "running"):
        plugins[0]["status"] = status
        pair.instance.postgres.query(
            "INSERT INTO install_tasks (id, status, tenant_id, total_plugins, completed_plugins, plugins) "
            "VALUES (%s, %s, %s, 1, 0, %s)",
            str(uuid.uuid4()),
            status,
            pair.console().tenant_id,
            json.dumps(plugins),
            database=daemon.database,
        )
    done = run(source="package", package=path)
    assert (done["plugins"][0]["action"], done["plugins"][0]["version"]) == ("installed", "0.0.6")
    assert "old" not in [one["message"] for one in done["plugins"][0]["progress"]]


def test_a_dependency_that_the_index_lacks(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = file(tmp_path, "0.1.4", replace={"requirements.txt": "no-such-package==9.9.9\n"})
    result = run(source="package", package=path)
    assert result["failed"] is True
    if silent(pair):
        assert "read the log of plugin_daemon" in result["msg"]
    else:
        assert "no-such-package was not found in the package registry" in result["msg"]
        assert "PIP_MIRROR_URL" in result["msg"]
        assert "DEBUG" not in result["msg"]
    assert (result["plugins"][0]["version"], listed(pair)) == ("", [])


def test_dependencies_that_take_too_long(pair: Pair, daemon: harness.Daemon, run: Run, tmp_path: Path) -> None:
    path = file(tmp_path, "0.1.5")
    daemon.fault(install="fail:init process exited due to no activity for 120 seconds")
    try:
        result = run(source="package", package=path)
    finally:
        daemon.fault()
    assert "Installing the dependencies took too long or failed again and again" in result["msg"]
    assert "raise PLUGIN_PYTHON_ENV_INIT_TIMEOUT" in result["msg"]
    # Slow, and the run gives up: it goes on, and the next run finds it.
    daemon.fault(install="slow:4")
    try:
        result = run(source="package", package=path, deadline=2)
    finally:
        daemon.fault()
    assert f"The installation of {OLLAMA} 0.1.5 is still " in result["msg"]
    assert "It goes on in the plugin daemon, so run this again later with a longer deadline" in result["msg"]
    later = run(source="package", package=path, verify="process")
    assert later["plugins"][0]["verified"] == "process", later["msg"]
    assert run(source="package", package=path)["changed"] is False


@pytest.mark.parametrize("fault", ["dead", "crashloop"])
def test_a_plugin_that_is_listed_and_dead(
    pair: Pair, daemon: harness.Daemon, run: Run, fault: str, tmp_path: Path
) -> None:
    wanted = {"source": "package", "package": file(tmp_path, "0.0.6"), "verify": "process"}
    run(**wanted)
    daemon.fault(plugin=fault)
    daemon.kill_plugins()
    try:
        result = run(**wanted, process_timeout=1.5)
    finally:
        daemon.fault()
    assert result["failed"] is True
    assert f"{OLLAMA} 0.0.6 is listed, but the plugin" in result["msg"]
    assert "log of plugin_daemon" in result["msg"]
    assert (result["changed"], result["plugins"][0]["verified"]) == (False, "listed")
    daemon.restart()
    assert run(**wanted)["plugins"][0]["verified"] == "process"


def test_a_plugin_whose_program_ends_at_once_leaves_the_old_one(pair: Pair, run: Run, tmp_path: Path) -> None:
    run(source="package", package=file(tmp_path, "0.0.6"))
    broken = file(tmp_path, "0.1.3", replace={"main.py": "import sys\nsys.exit('boom')\n"})
    result = run(source="package", package=broken, verify="process", process_timeout=1)
    assert result["failed"] is True
    if silent(pair):
        # This daemon calls it a success, and calls to the dead process hang.
        assert "is listed, but the plugin daemon took the call and never answered it" in result["msg"]
        return
    assert "boom" in result["msg"]
    assert result["plugins"][0]["version"] == "0.0.6"
    assert run(plugin=OLLAMA, verify="process")["plugins"][0]["verified"] == "process"


def test_signature_size_and_files_that_are_none(
    pair: Pair, daemon: harness.Daemon, run: Run, market: Market, tmp_path: Path
) -> None:
    market.offer(content("0.0.9"))
    daemon.restart(FORCE_VERIFYING_SIGNATURE="true", MAX_PLUGIN_PACKAGE_SIZE="9000")
    pair.instance.start(PLUGIN_MAX_PACKAGE_SIZE="1000")
    try:
        result = run(source="package", package=file(tmp_path, "0.0.6"))
        assert "bad signature" in result["msg"]
        assert "set FORCE_VERIFYING_SIGNATURE to false (dify_plugin_signatures)" in result["msg"]
        large = file(tmp_path, "0.0.7", key=daemon_package.OFFICIAL_KEY, replace={"x.txt": _noise(20000)})
        assert "PLUGIN_MAX_PACKAGE_SIZE for api and plugin_daemon" in run(source="package", package=large)["msg"]
        # What Dify itself fetches is measured by the api, too.
        result = run(plugin=OLLAMA)
        assert "Max file size reached. Raise PLUGIN_MAX_PACKAGE_SIZE of api and plugin_daemon" in result["msg"]
    finally:
        daemon.restart()
        pair.instance.start()
    assert listed(pair) == []
    cut = tmp_path / "cut.difypkg"
    cut.write_bytes(content("0.0.6")[:400])
    assert "is not a .difypkg package" in run(source="package", package=str(cut))["msg"]
    assert "cannot be read on the managed host" in run(source="package", package="/nowhere.difypkg")["msg"]


def _noise(size: int) -> str:
    """Text that does not shrink much in an archive."""
    return "".join(uuid.uuid4().hex for _ in range(size // 32))


def test_a_daemon_that_is_restarting_is_waited_for(
    pair: Pair, daemon: harness.Daemon, run: Run, tmp_path: Path
) -> None:
    daemon.stop()
    back = threading.Timer(1.5, lambda: daemon.start(migrate=False))
    back.start()
    done = run(source="package", package=file(tmp_path, "0.0.6"))
    back.join()
    assert done["plugins"][0]["action"] == "installed"


def test_a_daemon_that_stays_away(
    pair: Pair, daemon: harness.Daemon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dify_plugin, "RESTART_SECONDS", 0.5)
    daemon.stop()
    try:
        result = run(plugin=OLLAMA)
    finally:
        daemon.start(migrate=False)
    assert "plugin_daemon" in result["msg"]
    assert pair.console().tenant_id not in result["msg"]


def test_a_wrong_password_and_a_locked_account(pair: Pair, run: Run) -> None:
    result = run(plugin=OLLAMA, password="Wrong-passw0rd")
    assert "Nothing was tried again" in result["msg"]
    assert "Wrong-passw0rd" not in json.dumps(result)
    # A right login puts the counter of wrong ones back to zero.
    assert "failed" not in run(plugin=OLLAMA, state="absent")
    faults = pair.instance.home / "faults.json"
    faults.write_text('{"login": "locked"}')
    try:
        result = run(plugin=OLLAMA, state="absent")
    finally:
        faults.unlink()
    assert "Seven wrong passwords lock an account for 24 hours. Wait, or delete the key" in result["msg"]


def test_before_plugins(postgres: Any, redis_server: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with console_pair.running("0.15.3", postgres, redis_server, tmp_path, 57) as old:
        old.set_up()
        call = runner(old, "http://127.0.0.1:1", capsys, tmp_path)
        for check in (True, False):
            result = call(check=check, plugin=OLLAMA)
            assert "Dify 0.15.3 has no plugins" in result["msg"]
            assert "upgrade Dify" in result["msg"]
            assert call(check=check, plugin=OLLAMA, state="absent")["changed"] is False
