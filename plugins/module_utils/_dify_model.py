# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""Models of a workspace of Dify: look, change what differs and is one's own, read back, report the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.llmops.stack.plugins.module_utils import _dify_model_plan as plan
from ansible_collections.llmops.stack.plugins.module_utils._dify_console import NOT_STARTED, Console, ConsoleError
from ansible_collections.llmops.stack.plugins.module_utils._dify_health_texts import model_trouble
from ansible_collections.llmops.stack.plugins.module_utils._dify_model_plan import Difference, Field, Found, PlanError
from ansible_collections.llmops.stack.plugins.module_utils._dify_model_record import Record, Remembered, hashed
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

# States of the platform that pass: a daemon that starts, a plugin's process that comes up.
_PASSING = ("no_answer", "gateway", "server_error", "daemon_down", "plugin_dead")
_PAUSE = 2.0
_PREFIX = "An error occurred during credentials validation: "


class ModelError(Exception):
    """The wanted state was not reached; the text says what was found and what to do."""


@dataclasses.dataclass(frozen=True)
class Wish:
    model: str
    provider: str = "ollama"
    model_type: str = "llm"
    credentials: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    credential_name: str = "llmops.stack"
    default: bool = False
    state: str = "present"


@dataclasses.dataclass
class Options:
    overwrite: bool = False
    check: bool = False
    deadline: float = 120.0
    warn: Callable[[str], None] = print


class Workspace:
    """What the models of one run share: the list of providers is one request, whatever the number of models."""

    def __init__(self, console: Console, record: Record, options: Options) -> None:
        self.console = console
        self.record = record
        self.options = options
        self._patience = options.deadline
        self._providers: list[dict[str, Any]] | None = None
        self._disabled: dict[str, set[tuple[str, str]]] = {}

    def run(self, wishes: list[Wish]) -> list[dict[str, Any]]:
        """One result per wish; those that failed have an error, and the others are done all the same."""
        if self.options.check and self.console.setup_status() == NOT_STARTED:
            # The run that is checked would set it up first.
            self.options.warn("Dify has no owner yet, so nothing is known of its models. dify_setup gives it one.")
            return [Item(self, wish).foresee() for wish in wishes]
        # At once: an address that leads nowhere is no platform that is starting.
        self.console.login()
        results = []
        for wish in wishes:
            item = Item(self, wish)
            try:
                self._patiently(item)
            except (ModelError, PlanError) as exc:
                item.result["error"] = self.console.hide(f"{wish.model}: {exc}")
            except ConsoleError as exc:
                item.result["error"] = item.explain(exc)
            if "error" in item.result:
                item.settle()
            results.append(item.result)
        if not self.options.check:
            self.record.save()
        return results

    def _patiently(self, item: Item) -> None:
        """Again from the first look while the platform comes up: a write that took effect in spite of its error is
        found then, and not repeated. All models of a run share the time that is spent so."""
        while True:
            began = time.monotonic()
            try:
                item.run()
                return
            except ConsoleError as error:
                self._patience -= time.monotonic() - began + _PAUSE
                if error.kind not in _PASSING or self._patience < 0:
                    raise
            time.sleep(_PAUSE)

    def form(self, provider: str) -> list[Field] | None:
        """None where no plugin brings this provider."""
        if self._providers is None:
            self._providers = self.console.models.providers()
        wanted = self.console.models.provider_id(provider)
        entry = next((one for one in self._providers if one.get("provider") == wanted), None)
        return None if entry is None else plan.form(entry)

    def known_form(self, provider: str) -> list[Field] | None:
        """The same, of what was asked already."""
        with contextlib.suppress(PlanError, ConsoleError):
            return self.form(provider) if self._providers is not None else None
        return None

    def is_disabled(self, provider: str, model: str, model_type: str) -> bool:
        if provider not in self._disabled:
            self._disabled[provider] = set()
            # The list asks the plugin. That one which cannot answer is found by the health check, with its reason.
            with contextlib.suppress(ConsoleError):
                self._disabled[provider] = {
                    (str(one.get("model")), str(one.get("model_type")))
                    for one in self.console.models.of(provider)
                    if one.get("status") == "disabled"
                }
        return (model, model_type) in self._disabled[provider]


class Item:
    """One model."""

    def __init__(self, workspace: Workspace, wish: Wish) -> None:
        self.workspace = workspace
        self.models = workspace.console.models
        self.options = workspace.options
        self.wish = wish
        self.fields: list[Field] = []
        self.remembered: Remembered | None = None
        # Whether something may have been changed, and whether an answer about credentials is still out.
        self.written = False
        self.asking = False
        self.key = ""
        self.result: dict[str, Any] = {
            "provider": wish.provider,
            "model": wish.model,
            "model_type": wish.model_type,
            "action": "none",
            "changed": False,
            "credential_id": "",
            "credential_name": "",
            "credentials": {},
            "before": {},
            "after": {},
            "default": False,
            "drift": [],
        }

    @property
    def _names(self) -> tuple[str, str, str]:
        return self.wish.provider, self.wish.model, self.wish.model_type

    @property
    def _secret(self) -> set[str]:
        return {field.name for field in self.fields if field.secret}

    def _masked(self, values: Mapping[str, str]) -> dict[str, str]:
        return {key: plan.mask(value) if key in self._secret else value for key, value in values.items()}

    def run(self) -> None:
        self.result["provider"] = self.models.provider_id(self.wish.provider)
        self.key = f"{self.result['provider']} {self.wish.model_type} {self.wish.model}"
        self.remembered = self.workspace.record.get(self.key)
        self.result["drift"] = []
        if self.wish.state == "absent":
            self._absent()
            return
        self._present()
        self.result["after"] = dict(self.result["credentials"])
        if self.wish.default:
            self.result["after"]["default"] = self.result["default"]

    # present

    def _present(self) -> None:
        fields = self.workspace.form(self.wish.provider)
        if fields is None:
            self._without_provider()
            return
        self.fields = fields
        # Before anything can fail: an error shall not quote a secret, whatever its text is made of.
        self.workspace.console.secrets |= {
            str(value) for key, value in self.wish.credentials.items() if key in self._secret and value
        }
        wanted = plan.wanted_values(self.wish.credentials, fields, self.wish.model_type)
        found = self._look()
        if not self.result["changed"]:
            self.result["before"] = plan.public(found.values, fields) if found else {}
        if found is None:
            found = self._create(wanted)
        elif not found.current and found.available:
            found = self._attach(found, wanted)
        found = self._own_credential(found)
        if found is not None:
            self._values(found, wanted)
        created = self.result["action"] == "created"
        if not created and self.workspace.is_disabled(*self._names):
            self._disabled()
        if self.wish.default:
            self._default(created)

    def _without_provider(self) -> None:
        text = (
            f"Dify has no provider {self.result['provider']}: the plugin that brings it is not installed in this "
            "workspace, or not up yet. Install it with dify_plugin."
        )
        if not self.options.check:
            raise ModelError(text)
        # A check of a run that would install the plugin first.
        self.options.warn(text)
        self.foresee()

    def foresee(self) -> dict[str, Any]:
        """What is said where nothing can be looked at: that all of it would be done."""
        if self.wish.state == "present":
            self._did("created")
            self.result["credentials"] = dict.fromkeys(self.wish.credentials, plan.SHOWN)
            self.result["default"] = self.wish.default
        return self.result

    def _look(self, credential_id: str = "") -> Found | None:
        data = self.models.credentials(*self._names, credential_id)
        if not data["credentials"] and not data["available"]:
            return None
        values = {key: str(value) for key, value in data["credentials"].items() if value is not None}
        available = {str(one["credential_id"]): str(one["credential_name"]) for one in data["available"]}
        return Found(values, data["id"], data["name"], available)

    def _create(self, wanted: Mapping[str, str]) -> Found:
        whole = plan.complete(wanted, self.fields, self.wish.model_type)
        self._did("created")
        if self.options.check:
            return Found(self._masked(whole), "", self.wish.credential_name)
        self._save(whole, name=self.wish.credential_name)
        found = self._look()
        if found is not None and found.available and not found.current:
            # A model whose credential was deleted is still on the list, and takes a new one only when it is told to.
            self.models.switch(*self._names, plan.own(found, self.wish.credential_name, None))
            found = self._look()
        if found is None or not found.values:
            raise ModelError(
                "Dify took the credentials and does not use them: remove the model in Dify under Settings, Model "
                "Provider, and run again."
            )
        self._verify(found, whole)
        # All that was sent is one's own from now on, also what came from the form's defaults.
        self.remembered = Remembered(found.values, {}, found.current)
        return found

    def _attach(self, found: Found, wanted: Mapping[str, str]) -> Found:
        """The model was taken off the list, and its credentials stayed: use one of them instead of storing a copy."""
        chosen = plan.own(found, self.wish.credential_name, self.remembered)
        if not chosen:
            shown = {one: self._values_of(one) for one in found.available}
            chosen = plan.equal_credential(shown, wanted, self._secret)
        if not chosen:
            return self._create(wanted)
        self._did("switched")
        name = found.available[chosen]
        if self.options.check:
            return Found(self._values_of(chosen), chosen, name, found.available)
        self.written = True
        self.models.switch(*self._names, chosen)
        again = self._look()
        if again is not None and again.current == chosen:
            return again
        if name != self.wish.credential_name:
            return self._create(wanted)
        # The one of this collection holds nothing that is not in `wanted`.
        self.models.delete_credential(*self._names, chosen)
        return self._create(wanted)

    def _values_of(self, credential_id: str) -> Mapping[str, str]:
        found = self._look(credential_id)
        return found.values if found else {}

    def _own_credential(self, found: Found) -> Found | None:
        """The managed credential, made the current one where that is allowed; None where another one is used."""
        mine = plan.own(found, self.wish.credential_name, self.remembered)
        if mine == found.current:
            self._show(found)
            return found
        self._show(found)
        name = found.available[mine]
        if not self._may(Difference("credential", name, found.name, by_hand=True)):
            return None
        self._did("switched")
        if not self.options.check:
            self.written = True
            self.models.switch(*self._names, mine)
        again = self._look(mine)
        if again is None or again.current != mine:
            raise ModelError(f"Dify was told to use the credential {name} for {self.wish.model} and does not.")
        self._show(again)
        return again

    def _values(self, found: Found, wanted: Mapping[str, str]) -> None:
        differing = plan.differences(wanted, found.values, self.fields, self.remembered)
        write = {one.key: one.wanted for one in differing if not one.by_hand or self._may(one)}
        if write:
            self._did("updated")
            found = self._update(found, write)
        left_alone = {one.key for one in differing if one.key not in write}
        self._show(found)
        if not self.options.check:
            self._remember(found, {key: value for key, value in wanted.items() if key not in left_alone})

    def _update(self, found: Found, write: Mapping[str, str]) -> Found:
        if self.options.check:
            return dataclasses.replace(found, values={**found.values, **self._masked(write)})
        if found.current and found.current not in found.available:
            raise ModelError(
                f"The credential {found.name} of {self.wish.model} is still stored as an older release stored it, and "
                "Dify cannot change it: run `docker compose exec api flask data-migrate legacy-model-types --apply` "
                "first."
            )
        whole = plan.body(found.values, write, self.fields)
        self._save(whole, found.current, found.name)
        again = self._look()
        if again is None:
            raise ModelError(f"Dify took new credentials for {self.wish.model} and has none: see the log of its api.")
        kept = {key: value for key, value in found.values.items() if whole.get(key) == plan.KEEP_SECRET}
        lost = [key for key, value in kept.items() if again.values.get(key) != value]
        if lost:
            raise ModelError(
                f"Dify did not keep {' and '.join(lost)} of {self.wish.model} when other values changed: give it in "
                "credentials, too."
            )
        self._verify(again, write)
        return again

    def _save(self, values: dict[str, str], credential_id: str = "", name: str = "") -> None:
        self.asking = True
        try:
            self.models.save(*self._names, values, credential_id, name)
        except ConsoleError as error:
            # Dify refuses before it stores anything.
            self.asking = not 400 <= error.status < 500
            raise
        self.asking = False
        self.written = True

    def _verify(self, found: Found, written: Mapping[str, str]) -> None:
        wrong = plan.differences(written, found.values, self.fields, None)
        if wrong:
            raise ModelError(
                f"Dify took the credentials of {self.wish.model} and shows another "
                f"{' and '.join(one.key for one in wrong)}: see whether its plugin changes such values."
            )

    def _disabled(self) -> None:
        if not self._may(Difference("enabled", "true", "false", by_hand=True)):
            return
        self._did("updated")
        if not self.options.check:
            self.written = True
            self.models.enable(*self._names)

    def _default(self, created: bool) -> None:
        wanted = (self.result["provider"], self.wish.model)
        found = self.models.default(self.wish.model_type)
        self.result["default"] = found == wanted
        if not created:
            self.result["before"]["default"] = found == wanted
        # Dify itself makes the first model the default, so one that is not remembered is nobody's choice.
        free = created or not found[1] or (self.remembered is not None and not self.remembered.is_default)
        if found != wanted and (free or self._may(Difference("default", self.wish.model, found[1], by_hand=True))):
            self._did("updated")
            self.result["default"] = True
            self.written = not self.options.check
            if not self.options.check and not self.models.set_default(self.wish.model_type, *self._names[:2]):
                raise ModelError(
                    f"Dify was told to make {self.wish.model} the default {self.wish.model_type} and still has "
                    f"{self.models.default(self.wish.model_type)[1] or 'none'}."
                )
        if self.result["default"] and not self.options.check:
            self._remember_default()

    def _remember_default(self) -> None:
        """There is one default of a type, so no other model is remembered as it any more."""
        record = self.workspace.record
        for key in record.defaults():
            if key != self.key and key.split(" ")[1] == self.wish.model_type:
                record.set_default(key, False)
        record.set_default(self.key, True)

    # absent

    def _absent(self) -> None:
        try:
            found = self._look()
        except ConsoleError as error:
            if error.kind != "provider_missing":
                raise
            self.options.warn(
                f"The plugin of {self.result['provider']} is not installed, so {self.wish.model} cannot be used; "
                "credentials that Dify keeps for it come back with the plugin."
            )
            return
        if found is None:
            return
        with contextlib.suppress(PlanError):
            self.fields = self.workspace.form(self.wish.provider) or []
        self.result["before"] = plan.public(found.values, self.fields)
        self._did("deleted")
        if self.options.check:
            return
        self.written = True
        self.models.delete(*self._names)
        if self._look() is not None:
            raise ModelError(f"Dify deleted {self.wish.model} and still has credentials of it.")
        self.workspace.record.set(self.key, None)

    # what all share

    def _did(self, action: str) -> None:
        """The first thing that was done names the action: a new model that becomes the default was created."""
        self.result["changed"] = True
        if self.result["action"] == "none":
            self.result["action"] = action

    def _may(self, one: Difference) -> bool:
        """Whether a value that somebody set by hand is to be changed. It is reported either way."""
        self.result["drift"].append({**one.shown(), "overwritten": self.options.overwrite})
        return self.options.overwrite

    def _show(self, found: Found) -> None:
        self.result["credential_id"] = found.current
        self.result["credential_name"] = found.name
        self.result["credentials"] = plan.public(found.values, self.fields)

    def _remember(self, found: Found, wanted: Mapping[str, str]) -> None:
        """What is as wanted is one's own from now on; what was left alone stays as it was remembered."""
        old = self.remembered or Remembered({})
        values = {**old.values, **{key: found.values.get(key, "") for key in wanted}}
        hashes = dict(old.hashes)
        for key in self._secret & set(wanted):
            # A hash is salted anew each time: the file changes only where the secret did.
            if not hashes.get(key) or not old.is_secret(key, wanted[key]):
                hashes[key] = hashed(wanted[key])
        self.workspace.record.set(self.key, Remembered(values, hashes, found.current, old.is_default))

    def settle(self) -> None:
        """After an error: what was refused was not done."""
        if not (self.written or self.asking or self.options.check):
            self.result["changed"], self.result["action"] = False, "none"
        self.result["after"] = self.result["after"] or self.result["before"]

    def explain(self, error: ConsoleError) -> str:
        """What a refusal means. The provider's own objection is named with the address that it tried."""
        _before, objection, text = error.message.partition(_PREFIX)
        if objection:
            said = self._objection(text)
        elif error.kind == "server_error":
            # Dify says no more than 500, whatever is wrong behind it.
            said = (
                f"{self.wish.model}: Dify could not ask its plugin (HTTP {error.status}). The plugin's process is dead "
                "or still starting, plugin_daemon is down or has another PLUGIN_DAEMON_KEY than api, or PostgreSQL or "
                "Redis is out of reach: see the logs of plugin_daemon and api."
            )
        elif self.asking and error.code.startswith("timeout"):
            said = (
                f"{self.wish.model}: Dify tried the model{self._place} and did not answer in time. The plugin's "
                "process is dead, of which older plugin daemons say nothing, or the model server hangs: read the log "
                "of plugin_daemon and restart it, and ask the model server itself."
            )
        else:
            said = f"{self.wish.model}: {error}"
        if error.kind in _PASSING and self.options.deadline > 0:
            said += f" It was tried again until the deadline of {self.options.deadline:g} s had passed."
        return self.workspace.console.hide(said)

    def _objection(self, text: str) -> str:
        found, advice = model_trouble(text)
        host = urlsplit(self._base).hostname or ""
        if re.search(r"model\W.*not found|try pulling it", text, re.DOTALL):
            found = "the model is not found there"
            advice = "Correct its name, or pull the model there (ollama_models of that host)."
        elif "cannot be reached" in found and _is_loopback(host):
            advice = (
                f"Dify asks from inside a container, and there {host} is that container: write "
                "http://host.docker.internal:11434 for a model server on Dify's own host, never localhost, and let it "
                "listen to containers (ollama_bind)."
            )
        said = (found or text[:300]).rstrip(". ")
        return f"The provider does not accept {self.wish.model}{self._place}: {said}. {advice}".rstrip()

    @property
    def _base(self) -> str:
        return str(self.wish.credentials.get("base_url") or "")

    @property
    def _place(self) -> str:
        return f" at {mask_urls(self._base)}" if self._base else ""


def _is_loopback(host: str) -> bool:
    if host in ("localhost", "0.0.0.0"):  # noqa: S104  # an address that somebody wrote, none that is listened on
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
