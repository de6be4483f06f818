# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""From what is wanted and what a node has to models that are proved to be there: look, plan, fetch, prove."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_api import ApiError, Ollama
from ansible_collections.llmops.stack.plugins.module_utils._ollama_bundle import Import
from ansible_collections.llmops.stack.plugins.module_utils._ollama_digest import Digests
from ansible_collections.llmops.stack.plugins.module_utils._ollama_item import (
    Item,
    ModelError,
    Options,
    all_blobs,
    each,
    to_fetch,
)
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import BadName, parse
from ansible_collections.llmops.stack.plugins.module_utils._ollama_probe import capabilities, probe
from ansible_collections.llmops.stack.plugins.module_utils._ollama_progress import Progress
from ansible_collections.llmops.stack.plugins.module_utils._ollama_pull import Pull
from ansible_collections.llmops.stack.plugins.module_utils._ollama_registry import check_host
from ansible_collections.llmops.stack.plugins.module_utils._ollama_source import Source
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Blob, Found, Store, StoreError

# A run that may defer does not read more than this in silence.
_QUIET_BYTES = 8 * 1024**3


class Models:
    def __init__(self, options: Options, check_mode: bool, warn: Callable[[str], None]) -> None:
        self.options = options
        self.check_mode = check_mode
        self.warn = warn
        self.api = Ollama(options.url)
        self.store = Store(options.models_dir)
        self.progress = Progress(options.progress_file)
        self.digests = Digests(self.store, options.force_digest)
        deadline = time.monotonic() + options.deadline
        self.pull = Pull(self.api, self.store, self.progress, deadline, options.stall)
        bring = Import(self.store, self.digests, self.progress, deadline)
        self.source = Source(options, self.api, self.store, self.pull, bring, warn)
        self.healed: list[str] = []
        self.listed: set[str] | None = None
        self.replaced: set[str] = set()
        self.missing_bytes = 0
        self.items: list[Item] = []

    def run(self, names: Iterable[str]) -> dict[str, Any]:
        """Bring all models into the wanted state.

        Raises:
            ModelError: Nothing could be done at all.
        """
        items = self.items = self._items(names)
        bare = self._look(items)
        deferred = False
        if self.options.state == "absent":
            each(items, self._absent)
        else:
            deferred = self._present(items)
            if not deferred and not bare:
                self._prove(items)
        if not self.check_mode:
            self.digests.save()
        return self._summary(items, deferred)

    def _items(self, names: Iterable[str]) -> list[Item]:
        found: dict[str, Item] = {}
        try:
            for text in names:
                name = parse(text)
                if name.is_cloud and self.options.state != "absent":
                    raise BadName(f"{text!r} runs at ollama.com: no node can have its weights. Leave it out.")
                found.setdefault(name.key, Item(name))
            if self.options.registry:
                check_host(self.options.registry)
        except ValueError as exc:
            raise ModelError(str(exc)) from exc
        return list(found.values())

    # -- look

    def _look(self, items: list[Item]) -> bool:
        """See that server and store are there and belong together; whether the host is bare, as check mode allows."""
        bare = self.check_mode and not self.store.exists()
        try:
            self.api.version()
        except ApiError as exc:
            if bare:
                self.warn(f"There is no Ollama here yet: {exc} What would be fetched is told as for an empty store.")
                return True
            raise ModelError(
                f"Ollama does not answer, so no model is available: {exc} "
                "Start it (systemctl start ollama); if it does not stay up, journalctl -u ollama says why."
            ) from exc
        if not self.store.exists():
            raise ModelError(
                f"there is no store of models at {self.options.models_dir}. Let models_dir (ollama_models_dir) be "
                f"where OLLAMA_MODELS of the service at {self.options.url} points."
            )
        each(items, self._find)
        self._unlink_dangling(items)
        try:
            self.listed = self._list()
        except ApiError as exc:
            if not self.check_mode or not (self.healed or any(one.healed for one in items)):
                raise ModelError(f"Ollama does not list its models: {exc} journalctl -u ollama says why.") from exc
        each(items, self._same_store)
        return False

    def _find(self, item: Item) -> None:
        item.found = self.store.find(item.name)
        item.before = item.found.manifest.sha if item.found.manifest else item.found.state

    def _unlink_dangling(self, items: list[Item]) -> None:
        """One such link breaks the lists of every model, so they go, whichever models they belong to."""
        for path in self.store.dangling():
            owner = next((one for one in items if one.found.path == path), None)
            said = f"removed the manifest {os.path.relpath(path, self.store.manifests)}, a link to nothing"
            (owner.healed if owner else self.healed).append(said)
            if not self.check_mode:
                os.unlink(path)
                if owner:
                    owner.found = self.store.find(owner.name)

    def _list(self) -> set[str]:
        names = set()
        for model in self.api.tags():
            try:
                names.add(parse(str(model.get("name", ""))).key)
            except BadName:
                continue
        return names

    def _same_store(self, item: Item) -> None:
        if self.listed is not None and item.name.key in self.listed and item.found.state == "absent":
            raise StoreError(
                f"the server at {self.options.url} lists it, but there is no manifest of it in "
                f"{self.options.models_dir}. Let models_dir be where OLLAMA_MODELS of the service points."
            )

    # -- absent

    def _absent(self, item: Item) -> None:
        long = self.source.left_behind(item)
        if item.before == "absent" and not long:
            return
        item.action = "deleted"
        if self.check_mode:
            return
        for found in [long, item.found]:
            if found:
                self._delete(found)
        item.found = self.store.find(item.name)
        if item.name.key in self._list():
            raise StoreError(f"the server at {self.options.url} still lists it after it was deleted.")

    def _delete(self, found: Found) -> None:
        if found.state == "ok":
            self.api.delete(self.store.name_of(found.path))
        # What the server cannot read it does not delete.
        if os.path.lexists(found.path):
            os.unlink(found.path)

    # -- present and latest

    def _present(self, items: list[Item]) -> bool:
        """Fetch what is not there; whether that was left to another run."""
        may_defer = self.options.defer and not self.check_mode
        each(items, self._clear_left_behind)
        each(items, self._ask)
        self._examine(items, quick=True)
        if may_defer and (to_fetch(items) or self._unread(items) > _QUIET_BYTES):
            self._room(items)
            if to_fetch(items) or not any(one.error for one in items):
                return True
        self._examine(items)
        self._room(items)
        if self.check_mode:
            each(to_fetch(items), self._announce)
        elif to_fetch(items):
            if may_defer:
                return True
            self._fetch_all(items)
        return False

    def _unread(self, items: list[Item]) -> int:
        return self.digests.unknown_bytes(all_blobs(items)) if self.options.verify != "none" else 0

    def _clear_left_behind(self, item: Item) -> None:
        long = self.source.left_behind(item) if item.found.state == "ok" else None
        if long:
            item.note([f"removed {self.store.name_of(long.path)}, left behind by an interrupted pull"])
            if not self.check_mode:
                self._delete(long)

    def _ask(self, item: Item) -> None:
        """Ask the source where the answer matters: for a model that is not there, or may not be the latest."""
        latest = self.options.state == "latest"
        if latest or item.found.state != "ok":
            offered = self.source.offer(item, needed=latest)
            if not (offered and item.found.manifest and item.found.manifest.same_as(offered)):
                item.offered = offered

    def _examine(self, items: list[Item], quick: bool = False) -> None:
        """Find out, for all blobs at once, what is wrong with them; so what has to be fetched."""
        seen = all_blobs(items)
        faults = self._faults(seen, items, quick)

        def judge(item: Item) -> None:
            item.judge(faults)
            if item.fetch and not item.offered and item.found.manifest:
                # The registry may have moved on, and then a pull brings another model than the damaged one.
                try:
                    item.offered = self.source.offer(item)
                except StoreError as exc:
                    raise StoreError(f"{', '.join(item.complaints())}, and it cannot be fetched again: {exc}") from exc
                unseen = [one for one in item.blobs if one not in seen]
                item.judge({**faults, **self._faults(unseen, [item], quick)})
            item.missing_bytes = self.store.missing_bytes(item.blobs, item.damaged) if item.fetch else 0

        each(items, judge)

    def _faults(self, blobs: list[Blob], items: list[Item], quick: bool = False) -> dict[str, str]:
        if quick or self.options.verify == "none":
            return {one.sha: fault for one in blobs for fault in [self.store.fault(one)] if fault}
        shown = items[0].name.short if len(items) == 1 else f"{len(items)} models"
        total, done = self.digests.unknown_bytes(blobs), 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            self.progress.say(shown, "hashing", done, total)

        self.progress.start()
        return self.digests.faults(blobs, progress)

    def _room(self, items: list[Item]) -> None:
        """Refuse what the disk cannot take, before anything is touched. A blob of several models counts once."""
        fetching = to_fetch(items)
        damaged = {sha for one in fetching for sha in one.damaged}
        self.missing_bytes = self.store.missing_bytes(all_blobs(fetching), damaged)
        if not fetching or not self.store.exists():
            return
        free = self.store.free() + (0 if self.options.bundle else sum(map(self.store.used, damaged)))
        if self.missing_bytes > free:
            what = f"the {len(fetching)} models that are not there" if len(fetching) > 1 else "it"
            for item in fetching:
                item.fetch = False
                item.error = (
                    f"the disk of {self.options.models_dir} has {_mb(free)} free, and {what} takes "
                    f"{_mb(self.missing_bytes)}. Nothing was touched. Make room, or put the store on a larger disk "
                    "(ollama_models_dir)."
                )

    def _announce(self, item: Item) -> None:
        """What a run would do."""
        was = item.found.manifest
        self._mend(item)
        if self.options.bundle:
            item.action = "imported"
        else:
            item.action = "updated" if was and item.offered and not was.same_as(item.offered) else "pulled"

    # -- fetch

    def _fetch_all(self, items: list[Item]) -> None:
        """Fetch, and look at what came like at all else: a pull does not read the blobs that are there already."""
        expected = {one.name.key: one.offered for one in items}
        fetching = to_fetch(items)
        for attempt in (1, 2):
            self.source.renewed.clear()
            each(to_fetch(fetching), self._fetch)
            faults = self._faults(all_blobs(fetching), fetching)
            each(fetching, partial(Item.judge, faults=faults))
            if not to_fetch(fetching):
                break
            if attempt == 2:
                each(to_fetch(fetching), self._give_up)
        each(fetching, lambda item: self._as_offered(item, expected[item.name.key]))
        if self.replaced:
            self._unload()

    def _fetch(self, item: Item) -> None:
        was, first = item.found.manifest, item.action == "none"
        self._mend(item)
        self.replaced.update(item.damaged)
        action = self.source.fetch(item)
        item.found = self.store.find(item.name)
        item.offered = None
        if not item.found.manifest:
            raise StoreError(
                f"it was {action}, but its manifest in {self.options.models_dir} "
                f"{item.found.reason or 'is not there'}. Let models_dir be where OLLAMA_MODELS of the service points."
            )
        if first:
            item.action = "updated" if action == "pulled" and was and not was.same_as(item.found.manifest) else action

    def _mend(self, item: Item) -> None:
        """Make way for a pull, and note what it makes good."""
        if self.store.exists():
            self._hand_over(item, self.store.unwritable(item.found, item.blobs), "write to")
        if item.found.state == "garbage":
            item.note([f"the manifest {item.found.reason}"])
        item.note(item.complaints())

    def _give_up(self, item: Item) -> None:
        raise StoreError(f"{', '.join(item.complaints())}, also after it was fetched twice. Check disk and registry.")

    def _as_offered(self, item: Item, offered: Any) -> None:
        """What came must be what was offered, or what is offered by now."""
        manifest = item.found.manifest
        if offered is None or manifest is None or manifest.same_as(offered):
            return
        now = self.source.offer(item)
        if now and not manifest.same_as(now):
            raise StoreError(
                f"the server pulled the manifest {manifest.sha[:12]}, and the registry offers {now.sha[:12]}. "
                "Server and module may reach different registries: check proxies and mirrors."
            )

    def _hand_over(self, item: Item, paths: list[str], verb: str) -> None:
        for path in dict.fromkeys(paths):
            relative = os.path.relpath(path, self.options.models_dir)
            item.note([f"the service user could not {verb} {'the store' if relative == '.' else relative}"])
            if not self.check_mode:
                self.store.give(path)

    def _unload(self) -> None:
        """What was loaded from a damaged blob answers from it until it leaves the memory."""
        try:
            for model in self.api.ps():
                name = str(model.get("name", ""))
                manifest = self.store.find(parse(name)).manifest
                if manifest and any(one.sha in self.replaced for one in manifest.blobs):
                    self.api.unload(name)
        except (ApiError, BadName, StoreError) as exc:
            self.warn(f"A model may still answer from data that was damaged. Restart the service: {exc}")

    # -- prove

    def _prove(self, items: list[Item]) -> None:
        going = [one for one in items if not one.fetch]
        each(going, self._make_readable)
        if not self.check_mode and any(one.action != "none" or one.healed for one in items):
            try:
                self.listed = self._list()
            except ApiError as exc:
                raise ModelError(f"Ollama does not list its models: {exc} journalctl -u ollama says why.") from exc
        # What check mode would heal is not in order yet.
        each([one for one in going if not (self.check_mode and (self.healed or one.healed))], self._prove_one)

    def _make_readable(self, item: Item) -> None:
        self._hand_over(item, self.store.unreadable(item.found, item.blobs), "read")

    def _prove_one(self, item: Item) -> None:
        if self.listed is not None and item.name.key not in self.listed:
            raise StoreError(
                f"it is in {self.options.models_dir}, but the server at {self.options.url} does not list it. Let "
                "models_dir be where OLLAMA_MODELS of the service points, or see journalctl -u ollama."
            )
        if self.options.verify == "probe":
            self.progress.start()
            self.progress.say(item.name.short, "probing", 0, 0)
            item.probe, item.capabilities, item.context_length = probe(
                self.api, item.name.short, self.options.probe_deadline
            )
        else:
            # Nothing that was asked for depends on it.
            with contextlib.suppress(ApiError):
                item.capabilities = capabilities(self.api.show(item.name.short))
        item.verified = self.options.verify != "none"

    def _summary(self, items: list[Item], deferred: bool) -> dict[str, Any]:
        healed = self.healed or any(one.healed for one in items)
        return {
            "changed": not deferred and bool(healed or any(one.action != "none" for one in items)),
            "models": [one.result() for one in items],
            "healed": self.healed,
            "missing_bytes": self.missing_bytes,
            "bytes_transferred": self.pull.received,
            "bytes_hashed": self.digests.hashed_bytes,
            "deferred": deferred,
            "diff": {
                "before": {one.name.short: one.before + (", damaged" if one.healed else "") for one in items},
                "after": {one.name.short: self._after(one) for one in items},
            },
        }

    def _after(self, item: Item) -> str:
        if item.action == "deleted":
            return "absent"
        if self.check_mode and item.action != "none":
            return item.wanted.sha if item.wanted else item.action
        return item.found.manifest.sha if item.found.manifest else item.found.state


def _mb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
