# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Plugins of a Dify workspace: looked at, installed, upgraded, removed, and proved to run.

What is believed is the workspace's list and an answer of the plugin's process. A task of the plugin daemon is only
waited for: it can succeed without effect, vanish, or stay for ever.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from ansible_collections.llmops.stack.plugins.module_utils._dify_console import Console, ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_daemon import DaemonError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_daemon import PluginDaemon
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_market import Marketplace, MarketplaceError
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_names import Installed, Wanted, parse_name
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_package import Package
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_plan import (
    ACTIONS,
    PlanError,
    pinned,
    plan,
    strategy_of,
)
from ansible_collections.llmops.stack.plugins.module_utils._dify_plugin_texts import (
    ALREADY,
    PACKAGE_GONE,
    clean,
    explain_task,
    fetch_advice,
    no_plugins,
    not_listed,
    stuck,
    unchanged,
)
from ansible_collections.llmops.stack.plugins.module_utils._http import HttpError

__all__ = ["Options", "PluginError", "Plugins", "Wish"]

T = TypeVar("T")
# How long a plugin daemon that is just restarting is waited for.
RESTART_SECONDS = 30.0
# A process that is still ending is taken for the new one by some daemons.
SETTLE_SECONDS = 5.0
POLL_SECONDS = 1.0
# Polls without a task before it counts as gone: the API answers the same for a database in trouble.
GONE_POLLS = 3


class PluginError(Exception):
    """The wanted state was not reached; the text says why and what to do."""


class _PackageGone(PluginError):
    """The daemon has lost the package, and would take it again."""


@dataclass(frozen=True)
class Wish:
    """One plugin as it shall be, and where it is to come from."""

    wanted: Wanted
    state: str = "present"
    source: str = "marketplace"
    package: Package | None = None
    repo: str = ""
    release: str = ""
    release_file: str = ""
    pin: bool | None = None

    @property
    def exact(self) -> bool:
        """Whether only one version of it will do."""
        return bool(self.wanted.version) or self.package is not None


@dataclass(frozen=True)
class Options:
    """What holds for all plugins of a run."""

    marketplace: Marketplace
    verify: str = "listed"
    reinstall: bool = False
    deadline: float = 600.0
    process_timeout: float = 45.0
    daemon: PluginDaemon | None = None
    check: bool = False


@dataclass
class Item:
    """What became of one plugin."""

    plugin: str
    identifier: str = ""
    version: str = ""
    source: str = ""
    previous_version: str = ""
    action: str = "none"
    verified: str = "none"
    auto_upgrade: str = ""
    pinned: bool = False
    progress: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def result(self) -> dict[str, Any]:
        found = {name: value for name, value in vars(self).items() if name != "error"}
        return {**found, **({"error": self.error} if self.error else {})}


class Plugins:
    def __init__(self, console: Console, options: Options, warn: Callable[[str], Any]) -> None:
        self.console = console
        self.options = options
        self.warn = warn
        self.changed = False
        self.started = time.monotonic()
        self.end = self.started + options.deadline
        self.items: list[Item] = []
        self._before: dict[str, str] = {}
        self._installed: dict[str, Installed] = {}

    @property
    def before(self) -> dict[str, str]:
        return self._before

    @property
    def after(self) -> dict[str, str]:
        return {one.plugin: f"{one.version} ({one.source})" if one.version else "absent" for one in self.items}

    def run(self, wishes: list[Wish]) -> None:
        """What is done to each plugin is in `items`, in this order; one that fails does not keep the others back."""
        self.items = [Item(one.wanted.plugin) for one in wishes]
        if not self.console.plugins.available:
            if all(one.state == "absent" for one in wishes):
                return
            raise PluginError(no_plugins(self.console.version))
        self._look()
        for item in self.items:
            self._show(item, self._installed.get(item.plugin))
        self._before = self.after
        for item, wish in zip(self.items, wishes):
            self._guarded(item, wish, self._one)
        # Only now: what is done to one plugin can do something to another.
        if self.changed and not self.options.check:
            self._look()
        for item, wish in zip(self.items, wishes):
            if wish.state != "absent" and not item.error:
                self._guarded(item, wish, self._verify)

    def _guarded(self, item: Item, wish: Wish, step: Callable[[Item, Wish], None]) -> None:
        self.end = time.monotonic() + self.options.deadline
        try:
            step(item, wish)
        except (PluginError, PlanError, MarketplaceError) as exc:
            item.error = str(exc)
        except ConsoleError as exc:
            item.error = f"{wish.wanted.text}: {_refusal(exc, wish)}"

    def _one(self, item: Item, wish: Wish) -> None:
        found = self._installed.get(item.plugin)
        item.previous_version = item.version
        if wish.state == "absent":
            self._remove(item, found)
            return
        wanted = self._resolve(wish, found)
        if not wanted.is_met_by(found):
            route = plan(wanted, found, wish.source, self.options.daemon is not None, self.options.reinstall)
            item.action = ACTIONS[route]
            self.changed = True
            if self.options.check:
                item.identifier, item.version, item.source = wanted.identifier, wanted.version, wish.source
            else:
                found = self._apply(item, route, wish, wanted, found)
        if found:
            self._pin(item, wish, found)

    def _show(self, item: Item, found: Installed | None) -> None:
        item.identifier = found.identifier if found else ""
        item.version = found.version if found else ""
        item.source = found.source if found else ""

    def _remove(self, item: Item, found: Installed | None) -> None:
        if found is None:
            return
        item.action = "uninstalled"
        self.changed = True
        if not self.options.check:
            self._uninstall(found)
        self._show(item, None)

    def _uninstall(self, found: Installed) -> None:
        self._patiently(lambda: self.console.plugins.uninstall(found.installation))
        if found.plugin in self._look():
            raise PluginError(
                f"Dify answered that it removed {found.plugin} {found.version}, and lists it still. Read the log of "
                "plugin_daemon, and run this again."
            )

    # What exactly is wanted

    def _resolve(self, wish: Wish, found: Installed | None) -> Wanted:
        """With version and checksum, unless what is there will do."""
        resolve = {"package": self._from_package, "github": self._from_github, "marketplace": self._from_marketplace}
        return resolve[wish.source](wish, found)

    def _from_package(self, wish: Wish, found: Installed | None) -> Wanted:
        package = cast("Package", wish.package)  # the module asks for one with source=package
        if package.wanted.is_met_by(found) or self.options.check:
            return package.wanted
        return self._upload_file(package)

    def _upload_file(self, package: Package) -> Wanted:
        try:
            with open(package.path, "rb") as file:
                content = file.read()
        except OSError as exc:
            raise PluginError(f"The package {package.path} cannot be read any more: {exc.strerror or exc}.") from exc
        return self._upload(package.wanted.plugin, content)

    def _upload(self, plugin: str, content: bytes) -> Wanted:
        """The daemon's own word on what the package is. It only keeps it."""
        name = f"{plugin.replace('/', '-')}.difypkg"
        return _named(self._patiently(lambda: self.console.plugins.upload(name, content)))

    def _from_github(self, wish: Wish, found: Installed | None) -> Wanted:
        meta = _release_of(wish)
        same = found and found.source == "github" and all(found.meta.get(key) == meta[key] for key in meta)
        if found and same:
            return Wanted(found.plugin, found.version, found.checksum)
        if self.options.check:
            # Only the daemon can say what the file holds, and that is a change.
            return Wanted(wish.wanted.plugin, wish.release.lstrip("v"), "unknown")
        uploaded = self._upload_release(wish)
        if uploaded.plugin != wish.wanted.plugin:
            raise PluginError(
                f"{wish.release_file} of {wish.repo} {wish.release} is {uploaded.text}, not "
                f"{wish.wanted.plugin}: correct plugin or release_file."
            )
        return uploaded

    def _upload_release(self, wish: Wish) -> Wanted:
        return _named(self._patiently(lambda: self.console.plugins.upload_github(*_release_of(wish).values())))

    def _from_marketplace(self, wish: Wish, found: Installed | None) -> Wanted:
        wanted = wish.wanted
        if wish.state == "present" and (wanted.is_met_by(found) or wanted.identifier):
            return wanted
        newest = self._newest(wanted.plugin)
        if wish.state == "present" and wanted.version:
            same = newest is not None and newest.version == wanted.version
            return newest if newest and same else self.options.marketplace.find(wanted)
        newest = newest or self.options.marketplace.find(Wanted(wanted.plugin))
        if wish.state == "latest" and found and Wanted(found.plugin, found.version).order >= newest.order:
            return Wanted(found.plugin, found.version, found.checksum)
        return newest

    def _newest(self, plugin: str) -> Wanted | None:
        """What Dify's own marketplace has; None says only that nothing is known."""
        entry = self._patiently(lambda: self.console.plugins.latest([plugin])).get(plugin) or {}
        try:
            return parse_name(str(entry.get("unique_identifier") or ""))
        except ValueError:
            return None

    # Getting there

    def _apply(self, item: Item, route: str, wish: Wish, wanted: Wanted, found: Installed | None) -> Installed:
        if route == "reinstall" and found:
            self._bring(wish, wanted)
            self._uninstall(found)
            time.sleep(SETTLE_SECONDS)
        if route == "daemon" and found:
            call = functools.partial(self._upgrade_at_daemon, wish, wanted, found)
        elif route == "console" and found:
            call = functools.partial(self._upgrade, wish, wanted, found)
        else:
            call = functools.partial(self._install, wish, wanted)
        self._go(item, wish, wanted, call)
        listed = self._look().get(wanted.plugin)
        if listed is None:
            raise PluginError(not_listed(wanted.text))
        if not wanted.is_met_by(listed):
            raise PluginError(unchanged(wanted.text, listed.version))
        self._show(item, listed)
        return listed

    def _go(self, item: Item, wish: Wish, wanted: Wanted, call: Callable[[], str]) -> None:
        """Dify fetches nothing whose manifest the daemon still knows, also where its file was lost."""
        try:
            self._follow(item, wanted, call)
            return
        except _PackageGone:
            pass
        except ConsoleError as exc:
            if exc.kind != "package_missing":
                raise
        self._bring(wish, wanted)
        self._follow(item, wanted, call)

    def _follow(self, item: Item, wanted: Wanted, call: Callable[[], str]) -> None:
        task = self._patiently(call)
        if task:
            self._wait(item, task, wanted)

    def _bring(self, wish: Wish, wanted: Wanted) -> None:
        """Has the daemon keep the package. Nothing that it lists or knows is a proof that it still does."""
        if wish.package:
            uploaded = self._upload_file(wish.package)
        elif wish.source == "github":
            uploaded = self._upload_release(wish)
        else:
            uploaded = self._upload(wanted.plugin, self.options.marketplace.package(wanted, self.end))
        if uploaded != wanted:
            raise PluginError(
                f"What came from {wish.source} is {uploaded.identifier}, expected was {wanted.identifier}."
            )

    def _install(self, wish: Wish, wanted: Wanted) -> str:
        if wish.source == "github":
            return self.console.plugins.install_github(wanted.identifier, wish.repo, wish.release, wish.release_file)
        return self.console.plugins.install(wanted.identifier, wish.source)

    def _upgrade(self, wish: Wish, wanted: Wanted, found: Installed) -> str:
        if wish.source == "github":
            return self.console.plugins.upgrade_github(
                found.identifier, wanted.identifier, wish.repo, wish.release, wish.release_file
            )
        return self.console.plugins.upgrade(found.identifier, wanted.identifier)

    def _upgrade_at_daemon(self, wish: Wish, wanted: Wanted, found: Installed) -> str:
        """The console upgrades a plugin only by the source that it came from. The daemon takes any package it has."""
        daemon = cast("PluginDaemon", self.options.daemon)  # plan() comes here with one only
        if wish.source == "marketplace":
            self._bring(wish, wanted)
        try:
            return daemon.upgrade(self.console.tenant_id, found, wanted)
        except DaemonError as exc:
            raise PluginError(f"{wanted.text}: {daemon.explain(exc.cause, exc.message)}") from exc
        except HttpError as exc:
            raise PluginError(f"{wanted.text}: {daemon.explain_http(exc)}") from exc

    def _wait(self, item: Item, task_id: str, wanted: Wanted) -> None:
        """Until the task is finished, asked through the console: that also renews what Dify knows of providers.

        Only this task is looked at. Old ones of the same plugin stay in the list for ever, failed and successful.
        """
        missing = 0
        status = message = ""
        while True:
            task = self._patiently(lambda: self.console.plugins.task(task_id))
            if task is None:
                # Finished and forgotten, or never written: the list of plugins tells.
                missing += 1
                if missing >= GONE_POLLS or wanted.is_met_by(self._look().get(wanted.plugin)):
                    return
            else:
                missing = 0
                status = str(task.get("status") or "")
                message = _message(task, wanted)
                self._note(item, status, message)
                if status == "success":
                    return
                if status == "failed":
                    # An installation that an earlier run did not wait for was faster.
                    if ALREADY in message and wanted.is_met_by(self._look().get(wanted.plugin)):
                        return
                    kind = _PackageGone if PACKAGE_GONE in message else PluginError
                    raise kind(explain_task(wanted.text, message))
            if time.monotonic() + POLL_SECONDS > self.end:
                raise PluginError(stuck(wanted.text, time.monotonic() - self.started, status, message))
            time.sleep(POLL_SECONDS)

    def _note(self, item: Item, status: str, message: str) -> None:
        if not item.progress or (item.progress[-1]["status"], item.progress[-1]["message"]) != (status, message):
            seconds = round(time.monotonic() - self.started, 1)
            item.progress.append({"seconds": seconds, "status": status, "message": clean(message)[:200]})

    # Is it really there

    def _verify(self, item: Item, wish: Wish) -> None:
        found = self._installed.get(item.plugin)
        if self.options.verify == "none" or (self.options.check and item.action != "none"):
            return
        if found is None:
            raise PluginError(not_listed(wish.wanted.text))
        item.verified = "listed"
        daemon = self.options.daemon
        # Only a plugin with a model provider can be asked without doing something.
        if self.options.verify != "process" or not found.provider or daemon is None:
            return
        trouble = self._ask_process(daemon, found)
        if trouble and self.options.reinstall and daemon.curable(trouble):
            # Listed, and without a process for good: installing it over itself answers that all is installed.
            item.action = "reinstalled" if item.action == "none" else item.action
            self.changed = True
            if self.options.check:
                return
            wanted = Wanted(found.plugin, found.version, found.checksum)
            found = self._apply(item, "reinstall", wish, wanted, found)
            trouble = self._ask_process(daemon, found)
        if trouble:
            raise PluginError(f"{found.plugin} {found.version} is listed, but {daemon.explain(*trouble)}")
        item.verified = "process"

    def _ask_process(self, daemon: PluginDaemon, found: Installed) -> tuple[str, str] | None:
        """None as soon as a call came back. After a start of the daemon its plugins are away for some seconds."""
        end = time.monotonic() + self.options.process_timeout
        while True:
            trouble = daemon.sign_of_life(self.console.tenant_id, found)
            if trouble is None or not daemon.may_pass(trouble) or time.monotonic() + POLL_SECONDS > end:
                return trouble
            time.sleep(POLL_SECONDS)

    # Automatic upgrades

    def _pin(self, item: Item, wish: Wish, found: Installed) -> None:
        """Dify upgrades plugins of the marketplace by itself, those of models to the latest in newer releases."""
        pin = wish.exact if wish.pin is None else wish.pin
        if found.source != "marketplace" and wish.pin is None:
            return
        settings = self._patiently(lambda: self.console.plugins.auto_upgrade(found.category or "model"))
        if settings is None:
            return
        # An option that was not given takes no pin away.
        new = settings if wish.pin is None and not pin else pinned(settings, found.plugin, pin)
        if strategy_of(new, found.plugin) != strategy_of(settings, found.plugin):
            self.changed = True
            if not self.options.check:
                self._patiently(lambda: self.console.plugins.set_auto_upgrade(new, found.category or "model"))
        item.auto_upgrade = strategy_of(new, found.plugin)
        item.pinned = item.auto_upgrade == "disabled"
        undecided = wish.pin is None and wish.state == "present"
        if undecided and item.action in ("installed", "reinstalled") and not item.pinned:
            self.warn(
                f"Dify upgrades {found.plugin} by itself ({item.auto_upgrade}), so version {found.version} will not "
                "stay. Give a version, or set pin."
            )

    # Requests

    def _look(self) -> dict[str, Installed]:
        entries = self._patiently(self.console.plugins.installed)
        self._installed = {one.plugin: one for one in map(Installed.of, entries)}
        return self._installed

    def _patiently(self, call: Callable[[], T]) -> T:
        """Asks again while the plugin daemon is away, as it is for some seconds when it is restarted."""
        end = min(time.monotonic() + RESTART_SECONDS, max(self.end, time.monotonic() + POLL_SECONDS))
        while True:
            try:
                return call()
            except ConsoleError as exc:
                if exc.kind not in ("daemon_down", "gateway") or time.monotonic() + POLL_SECONDS > end:
                    raise
            time.sleep(POLL_SECONDS)


def _refusal(error: ConsoleError, wish: Wish) -> str:
    advice = fetch_advice(error.message, wish.source)
    return f"Dify cannot fetch the package: {error.message}. {advice}" if advice else str(error)


def _release_of(wish: Wish) -> dict[str, str]:
    return {"repo": wish.repo, "version": wish.release, "package": wish.release_file}


def _named(identifier: str) -> Wanted:
    """What the daemon calls a package that it was given."""
    try:
        return parse_name(identifier)
    except ValueError as exc:
        raise PluginError(f"Dify took the package and gave it the name '{identifier}', which is none.") from exc


def _message(task: dict[str, Any], wanted: Wanted) -> str:
    """What the task says of this plugin."""
    entries = [one for one in task.get("plugins") or [] if isinstance(one, dict)]
    named = [one for one in entries if one.get("plugin_unique_identifier") == wanted.identifier] or entries
    return str(named[0].get("message") or "") if named else ""
