# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""One app of a workspace of Dify from its DSL: imported, published, reachable by its API with one key."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import stat
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._dify_console import NOT_STARTED, Console, ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_console_apps import WORKFLOW_MODES
from ansible_collections.llmops.stack.plugins.module_utils._dify_model_record import Record
from ansible_collections.llmops.stack.plugins.module_utils._download import write_atomically

try:
    import yaml
except ImportError:
    HAS_YAML = False
    YAML_IMPORT_ERROR: str | None = traceback.format_exc()
    _INVALID: tuple[type[Exception], ...] = (ValueError,)
else:
    HAS_YAML = True
    YAML_IMPORT_ERROR = None
    _INVALID = (ValueError, yaml.YAMLError)


class AppError(Exception):
    """The wanted state was not reached; the text says what was found and what to do."""


@dataclasses.dataclass(frozen=True)
class Wish:
    name: str
    dsl: Any = None  # the text of the file, or what it parses to
    state: str = "present"
    enable_api: bool = True
    key: bool = True
    key_file: str = ""


@dataclasses.dataclass
class Options:
    overwrite: bool = False
    check: bool = False
    warn: Callable[[str], None] = print


def text_of(dsl: Any) -> str:
    """What is sent. JSON is YAML, so that a mapping needs no YAML library."""
    return dsl if isinstance(dsl, str) else json.dumps(dsl, ensure_ascii=False, sort_keys=True, default=str)


def parsed(dsl: Any) -> dict[str, Any]:
    """The document.

    Raises:
        AppError: it is no mapping with an app.
    """
    if isinstance(dsl, str):
        try:
            dsl = yaml.safe_load(dsl) if HAS_YAML else json.loads(dsl)
        except _INVALID as exc:
            # Not even as the cause: the library's own text quotes the line, which may hold a secret.
            raise AppError(f"The DSL is not valid YAML: {_problem(exc)}.") from None
    if not isinstance(dsl, Mapping) or not isinstance(dsl.get("app"), Mapping):
        raise AppError("The DSL is not one of an app: it has no mapping `app`. Export an app in Dify to see one.")
    return dict(dsl)


def needs_yaml(dsl: Any) -> bool:
    """Whether this DSL can only be read with a library that the host does not have."""
    if HAS_YAML or not isinstance(dsl, str):
        return False
    with contextlib.suppress(ValueError):
        json.loads(dsl)
        return False
    return True


def _problem(exc: Exception) -> str:
    """What a parser of YAML or JSON complains of and where, without a word of the text."""
    said = str(getattr(exc, "problem", None) or getattr(exc, "reason", None) or getattr(exc, "msg", None) or "")
    # Names of aliases and tags are quoted in it; one character, an escape or a kind of token tells nothing.
    said = re.sub(r"'(?![<\\ ,]|.').{2,}'|\".{2,}\"", "…", said) or "a value is not what its kind asks for"
    mark = getattr(exc, "problem_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (getattr(exc, "lineno", 0), getattr(exc, "colno", 0))
    return f"{said} (line {line}, column {column})" if line else said


def digest(dsl: Any, mode: str) -> str:
    """Of what a new DSL changes in an app that exists: all of a workflow, and of another app what it runs with."""
    applied = dsl if mode in WORKFLOW_MODES else parsed(dsl).get("model_config") or {}
    return hashlib.sha256(text_of(applied).encode()).hexdigest()


class App:
    def __init__(self, console: Console, record: Record, options: Options, wish: Wish) -> None:
        self.console = console
        self.apps = console.apps
        self.record = record
        self.options = options
        self.wish = wish
        self.key = f"app {wish.name}"
        self.token = ""
        self.content = str((record.entry(self.key) or {}).get("dsl") or "")
        self.has_key: bool | None = None  # None where keys are not asked for
        self.result: dict[str, Any] = {
            "changed": False,
            "action": "none",
            "name": wish.name,
            "id": "",
            "mode": "",
            "enable_api": False,
            "key_id": "",
            "missing_plugins": [],
            "drift": [],
            "before": {},
            "after": {},
        }

    def run(self) -> dict[str, Any]:
        if self.options.check and self.console.setup_status() == NOT_STARTED:
            # The run that is checked would set it up first.
            self.options.warn("Dify has no owner yet, so nothing is known of its apps. dify_setup gives it one.")
            if self.wish.state == "present":
                self._did("created")
            return self.result
        found = self.apps.find(self.wish.name)
        if len(found) > 1:
            raise AppError(
                f"Dify has {len(found)} apps with the name {self.wish.name}, so it is not clear which one is meant: "
                "rename or delete the others in Dify."
            )
        app = self.apps.get(str(found[0]["id"])) if found else {}
        try:
            if self.wish.state == "absent":
                self._absent(app)
            else:
                self._present(app)
        finally:
            # Also where it broke off: what was made is one's own, and not somebody's work in the browser.
            if not self.options.check:
                self.record.save()
        return self.result

    # present

    def _present(self, app: dict[str, Any]) -> None:
        document = parsed(self.wish.dsl) if self.wish.dsl else {}
        mode = str((document.get("app") or {}).get("mode") or "")
        if app:
            self._show(app)
            self.result["before"] = self._state(app)
            if mode and mode != app.get("mode"):
                raise AppError(
                    f"The app {self.wish.name} is a {app.get('mode')} and the DSL a {mode}; Dify cannot change that. "
                    "Delete the app (state: absent), or give the DSL another name."
                )
            app = self._content(app, document)
        else:
            app = self._create(mode)
            if not app:
                return
        self._publish(app)
        if bool(app.get("enable_api")) != self.wish.enable_api:
            self._did("updated")
            if not self.options.check:
                self.apps.enable_api(str(app["id"]), self.wish.enable_api)
            app["enable_api"] = self.wish.enable_api
        self._show(app)
        if self.wish.key:
            self._key(str(app["id"]))
        self.result["after"] = self._state(app)

    def _create(self, mode: str) -> dict[str, Any]:
        if not self.wish.dsl:
            raise AppError(f"Dify has no app {self.wish.name}, and there is no DSL to make it from: give dsl or src.")
        self._did("created")
        if self.options.check:
            made = {"mode": mode, "enable_api": self.wish.enable_api}
            self._show(made)
            self.content = digest(self.wish.dsl, mode)
            self.has_key = True if self.wish.key else None
            self.result["after"] = self._state(made)
            return {}
        app_id = str(self._import()["app_id"])
        # At once: whatever happens from here on, the next run finds its own app and not one that somebody made.
        self._begin(app_id, dsl=digest(self.wish.dsl, mode))
        self._report_missing_plugins(app_id)
        return self._remember(app_id)

    def _content(self, app: dict[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
        """What the app does. It is changed if the DSL is another one than last time, and nobody changed it since."""
        if not document:
            return app
        app_id = str(app["id"])
        mode = str(app.get("mode"))
        left = self.record.entry(self.key) or {}
        same = left.get("dsl") == digest(self.wish.dsl, mode)
        broke_off = left.get("app_id") == app_id and "mark" not in left
        by_hand = not broke_off and (left.get("app_id") != app_id or left.get("mark") != self._mark(app))
        if same and not by_hand:
            return self._remember(app_id) if broke_off else app
        if by_hand and self.record.path:
            self.result["drift"].append({"key": "content", "overwritten": self.options.overwrite})
        if by_hand and not self.options.overwrite:
            return app
        self._did("updated")
        self.content = digest(self.wish.dsl, mode)
        if self.options.check:
            return app
        self._begin(app_id)
        try:
            if mode in WORKFLOW_MODES:
                self._import(app_id)
            else:
                # Dify imports over workflows only.
                self.apps.set_model_config(app_id, dict(document.get("model_config") or {}))
        except (AppError, ConsoleError) as error:
            if not isinstance(error, ConsoleError) or 0 < error.status < 500:
                # Dify refused, so that the app is as it was.
                self.record.put(self.key, left or None)
            raise
        if mode in WORKFLOW_MODES:
            self.apps.publish(app_id)
        return self._remember(app_id)

    def _begin(self, app_id: str, **known: str) -> None:
        """Notes, before anything can break off, that the app is written to. Without a mark, its edits are one's own."""
        self.record.put(self.key, {**self._kept(app_id), "app_id": app_id, **known})
        self.record.save()

    def _kept(self, app_id: str) -> dict[str, Any]:
        left = self.record.entry(self.key) or {}
        return {"key_id": left["key_id"]} if left.get("app_id") == app_id and "key_id" in left else {}

    def _import(self, app_id: str = "") -> dict[str, Any]:
        try:
            # With the name, or an import over an app gives it the one in the DSL.
            return self.apps.import_dsl(text_of(self.wish.dsl), self.wish.name, app_id)
        except ConsoleError as error:
            if not re.search(r"Errno|Connection refused|maximum retries", error.message):
                raise
            raise AppError(
                f"Dify asked the plugin marketplace about the app {self.wish.name} and could not reach it "
                f"({error.message}). It does so for a DSL of version 0.1.5 or older: write version: 0.3.1 or newer "
                "into it, or set MARKETPLACE_API_URL of api to a mirror."
            ) from error

    def _report_missing_plugins(self, app_id: str) -> None:
        # Only a hint; an app whose plugins cannot be listed was imported all the same.
        with contextlib.suppress(ConsoleError):
            self.result["missing_plugins"] = self.apps.missing_plugins(app_id)
        if self.result["missing_plugins"]:
            self.options.warn(
                f"The app {self.wish.name} was imported and asks for plugins that are not installed: "
                f"{', '.join(self.result['missing_plugins'])}."
            )

    def _publish(self, app: Mapping[str, Any]) -> None:
        """A workflow answers only after a publish, which an import is not."""
        app_id = str(app["id"])
        if app.get("mode") not in WORKFLOW_MODES or self.apps.published(app_id):
            return
        self._did("updated")
        if self.options.check:
            return
        self.apps.publish(app_id)
        if not self.apps.published(app_id):
            raise AppError(f"Dify was told to publish {self.wish.name} and did not: see the log of its api.")

    def _mark(self, app: Mapping[str, Any]) -> str:
        """Changes when somebody edits what the app does. Not the content: each release shows that differently."""
        if app.get("mode") in WORKFLOW_MODES:
            return str(self.apps.draft(str(app["id"])).get("updated_at") or "")
        return str((app.get("model_config") or {}).get("updated_at") or "")

    def _remember(self, app_id: str) -> dict[str, Any]:
        app = self.apps.get(app_id)
        self.content = digest(self.wish.dsl, str(app.get("mode")))
        known = {"app_id": app_id, "dsl": self.content, "mark": self._mark(app)}
        self.record.put(self.key, {**self._kept(app_id), **known})
        return app

    # The key

    def _key(self, app_id: str) -> None:
        keys = self.apps.keys(app_id)
        left = self.record.entry(self.key) or {}
        on_file = _read(self.wish.key_file)
        mine = next(
            (one for one in keys if one.get("id") == left.get("key_id") or (on_file and one.get("token") == on_file)),
            # Never a second one: ten are all that an app may have.
            keys[0] if keys else None,
        )
        if self.result["before"]:
            self.result["before"]["key"] = mine is not None
        self.has_key = True
        if mine is None:
            self._did("updated")
            if self.options.check:
                return
            mine = self.apps.create_key(app_id)
        self.token = str(mine["token"])
        self.result["key_id"] = str(mine["id"])
        if not self.options.check and left:
            self.record.put(self.key, {**(self.record.entry(self.key) or {}), "key_id": self.result["key_id"]})
        if self.wish.key_file and (on_file != self.token or _is_open(self.wish.key_file)):
            self._did("updated")
            if not self.options.check:
                write_atomically(os.path.abspath(self.wish.key_file), self.token + "\n", 0o600)

    # absent

    def _absent(self, app: dict[str, Any]) -> None:
        if app:
            self._show(app)
            self.result["before"] = self._state(app)
            self._did("deleted")
            if not self.options.check:
                self.apps.delete(str(app["id"]))
                if self.apps.find(self.wish.name):
                    raise AppError(
                        f"Dify was told to delete {self.wish.name} and still has it: see the log of its api."
                    )
                self.record.put(self.key, None)
        if self.wish.key_file and os.path.exists(self.wish.key_file):
            self._did("deleted")
            if not self.options.check:
                os.unlink(self.wish.key_file)

    # what all share

    def _did(self, action: str) -> None:
        """The first thing that was done names the action: a new app that gets a key was created."""
        self.result["changed"] = True
        if self.result["action"] == "none":
            self.result["action"] = action

    def _show(self, app: Mapping[str, Any]) -> None:
        self.result["id"] = str(app.get("id") or "")
        self.result["mode"] = str(app.get("mode") or "")
        self.result["enable_api"] = bool(app.get("enable_api"))

    def _state(self, app: Mapping[str, Any]) -> dict[str, Any]:
        """For the diff."""
        state: dict[str, Any] = {"mode": str(app.get("mode") or ""), "enable_api": bool(app.get("enable_api"))}
        if self.content:
            state["dsl"] = self.content
        if self.has_key is not None:
            state["key"] = self.has_key
        return state


def _read(path: str) -> str:
    if path:
        with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
            return file.read().strip()
    return ""


def _is_open(path: str) -> bool:
    """Whether others than its owner may read or change the file."""
    return bool(stat.S_IMODE(os.stat(path).st_mode) & 0o077)
