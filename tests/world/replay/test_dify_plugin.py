# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module dify_plugin against the stand-ins of API and plugin daemon, release by release, with every known trap."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.parse
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
from standin import daemon_package
from standin.daemon_package import pack

OLLAMA = "langgenius/ollama"
Run = Callable[..., dict[str, Any]]


class Market:
    """A marketplace with some versions of one plugin."""

    def __init__(self) -> None:
        self.packages: dict[str, bytes] = {}
        self.asked: list[str] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                path, _mark, query = self.path.partition("?")
                wanted = urllib.parse.parse_qs(query).get("unique_identifier", [""])[0]
                if path.endswith("/versions"):
                    listed = [{"unique_identifier": one, "version": version_of(one)} for one in owner.packages]
                    self._send(json.dumps({"code": 0, "data": {"versions": listed}}).encode())
                elif wanted in owner.packages:
                    self._send(owner.packages[wanted])
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                owner.asked.append(self.path)
                self.rfile.read(int(self.headers["Content-Length"]))
                author, name = OLLAMA.split("/")
                newest = list(owner.packages)[-1:]
                entries = [
                    {"org": author, "name": name, "latest_version": version_of(one), "latest_package_identifier": one}
                    for one in newest
                ]
                self._send(json.dumps({"code": 0, "data": {"plugins": entries}}).encode())

            def _send(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *unused: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def offer(self, *versions: str) -> None:
        self.packages = {daemon_package.read(data).identifier: data for data in map(content, versions)}


def content(version: str, **options: Any) -> bytes:
    return pack(OLLAMA, version, **options)


def version_of(identifier: str) -> str:
    return identifier.split(":")[1].split("@")[0]


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    market = Market()
    yield market
    market.server.shutdown()
    market.server.server_close()


@pytest.fixture(scope="module", params=[release for release, daemon in console_pair.DAEMONS.items() if daemon])
def place(
    request: pytest.FixtureRequest,
    postgres: Any,
    redis_server: Any,
    market: Market,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp(f"plugin-{request.param}")
    with console_pair.running(
        request.param, postgres, redis_server, directory, 57, MARKETPLACE_API_URL=market.url
    ) as pair:
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


def only_on(pair: Pair, release: str) -> None:
    """For what takes its time and is the same everywhere."""
    if pair.release != release:
        pytest.skip(f"done on {release}")


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


def test_without_the_key_an_upgrade_is_a_reinstallation_if_that_is_allowed(
    pair: Pair, run: Run, tmp_path: Path
) -> None:
    only_on(pair, "1.12.1")
    run(source="package", package=file(tmp_path, "0.0.6"))
    done = run(source="package", package=file(tmp_path, "0.1.0"), secrets_file=None, reinstall=True)
    assert (done["plugins"][0]["action"], listed(pair)) == ("reinstalled", [("0.1.0", "package")])


def test_the_marketplace_by_exact_version_and_by_the_latest(pair: Pair, run: Run, market: Market) -> None:
    market.offer("0.0.6", "0.1.0")
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


def test_a_plugin_from_a_package_goes_to_a_version_of_the_marketplace(
    pair: Pair, run: Run, market: Market, tmp_path: Path
) -> None:
    only_on(pair, "1.16.0")
    market.offer("0.0.6", "0.1.0")
    run(source="package", package=file(tmp_path, "0.0.6"))
    done = run(plugin=OLLAMA, plugin_version="0.1.0", verify="process")
    assert (done["plugins"][0]["action"], listed(pair)) == ("upgraded", [("0.1.0", "package")])
    assert run(plugin=OLLAMA, plugin_version="0.1.0")["changed"] is False


def test_a_marketplace_without_the_version_or_out_of_reach(pair: Pair, run: Run, market: Market) -> None:
    only_on(pair, "1.16.0")
    market.offer("0.0.6")
    result = run(plugin=OLLAMA, plugin_version="9.9.9")
    assert f"has no version 9.9.9 of {OLLAMA}; it has 0.0.6" in result["msg"]
    result = run(plugin=OLLAMA, plugin_version="9.9.9", marketplace_url="http://127.0.0.1:1")
    assert "cannot be asked for the versions of langgenius/ollama" in result["msg"]
    # The api container does not reach it: a whole identifier needs no look-up, and Dify says what is wrong.
    result = run(plugin=f"{OLLAMA}:0.0.9@{'a' * 64}")
    assert "MARKETPLACE_API_URL" in result["msg"]
    assert listed(pair) == []


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


def test_signature_size_and_files_that_are_none(pair: Pair, daemon: harness.Daemon, run: Run, tmp_path: Path) -> None:
    only_on(pair, "1.16.0")
    daemon.restart(FORCE_VERIFYING_SIGNATURE="true", MAX_PLUGIN_PACKAGE_SIZE="9000")
    try:
        result = run(source="package", package=file(tmp_path, "0.0.6"))
        assert "FORCE_VERIFYING_SIGNATURE" in result["msg"]
        large = file(tmp_path, "0.0.7", key=daemon_package.OFFICIAL_KEY, replace={"x.txt": _noise(20000)})
        assert "PLUGIN_MAX_PACKAGE_SIZE" in run(source="package", package=large)["msg"]
    finally:
        daemon.restart()
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
    only_on(pair, "1.16.0")
    daemon.stop()
    back = threading.Timer(1.5, lambda: daemon.start(migrate=False))
    back.start()
    done = run(source="package", package=file(tmp_path, "0.0.6"))
    back.join()
    assert done["plugins"][0]["action"] == "installed"


def test_a_daemon_that_stays_away(
    pair: Pair, daemon: harness.Daemon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_on(pair, "1.7.2")
    monkeypatch.setattr(_dify_plugin, "RESTART_SECONDS", 0.5)
    daemon.stop()
    try:
        result = run(plugin=OLLAMA)
    finally:
        daemon.start(migrate=False)
    assert "plugin_daemon" in result["msg"]
    assert pair.console().tenant_id not in result["msg"]


def test_a_wrong_password(pair: Pair, run: Run) -> None:
    only_on(pair, "1.16.0")
    result = run(plugin=OLLAMA, password="Wrong-passw0rd")
    assert "Nothing was tried again" in result["msg"]
    assert "Wrong-passw0rd" not in json.dumps(result)
    # A right login puts the counter of wrong ones back to zero.
    assert "failed" not in run(plugin=OLLAMA, state="absent")


def test_before_plugins(postgres: Any, redis_server: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with console_pair.running("0.15.3", postgres, redis_server, tmp_path, 57) as old:
        old.set_up()
        call = runner(old, "http://127.0.0.1:1", capsys, tmp_path)
        for check in (True, False):
            result = call(check=check, plugin=OLLAMA)
            assert "Dify 0.15.3 has no plugins" in result["msg"]
            assert "upgrade Dify" in result["msg"]
            assert call(check=check, plugin=OLLAMA, state="absent")["changed"] is False
