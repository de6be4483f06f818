# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""Where models come from: the registry of their name, a mirror that stands in for it, or a folder."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.llmops.stack.plugins.module_utils import _ollama_registry as registries
from ansible_collections.llmops.stack.plugins.module_utils._ollama_api import Ollama
from ansible_collections.llmops.stack.plugins.module_utils._ollama_bundle import Import
from ansible_collections.llmops.stack.plugins.module_utils._ollama_item import Item, Options
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import Name
from ansible_collections.llmops.stack.plugins.module_utils._ollama_pull import Pull
from ansible_collections.llmops.stack.plugins.module_utils._ollama_store import Found, Manifest, Store, StoreError
from ansible_collections.llmops.stack.plugins.module_utils._stack_mirror import lacks


class Source:
    def __init__(
        self, options: Options, api: Ollama, store: Store, pull: Pull, bring: Import, warn: Callable[[str], None]
    ) -> None:
        self.options = options
        self.api = api
        self.store = store
        self.pull = pull
        self.bring = bring
        self.warn = warn
        self.bundle = Store(options.bundle) if options.bundle else None
        # Blobs of this round that were put right for one model are right for the next one, too.
        self.renewed: set[str] = set()

    def offer(self, item: Item, needed: bool = False) -> Manifest | None:
        """What there is to be had under the name; None where nobody can be asked and it is not `needed`."""
        if self.bundle:
            found = self.bundle.find(item.name)
            if not found.manifest:
                said = f"its manifest there {found.reason}" if found.reason else "the model is not in it"
                raise StoreError(f"the bundle {self.options.bundle} cannot give it: {said}. Make the bundle anew.")
            return found.manifest
        try:
            source, options = self._at_source(item.name), self.options
            return registries.manifest_of(source, options.insecure, options.proxy, options.no_proxy)
        except registries.RegistryError as exc:
            if exc.missing:
                short = item.name.short
                raise StoreError(
                    f"{exc} Check the name and tag. {lacks(options.registry, f'model {short}')}".rstrip()
                ) from exc
            if needed:
                raise StoreError(
                    f"whether it is the latest cannot be said, because the registry cannot be asked: {exc} "
                    "Let this host reach it, set a mirror (ollama_registry), or use state: present."
                ) from exc
            self.warn(
                f"{item.name.short}: how much a pull takes, and whether the disk has room for it, was not checked, "
                f"because the registry cannot be asked from here: {exc}"
            )
            return None

    def fetch(self, item: Item) -> str:
        """Have what is wanted in the store; returns how it came."""
        if self.bundle and item.wanted:
            need = [one for one in item.blobs if one.sha in item.bad and one.sha not in self.renewed]
            self.bring.run(self.bundle, item.wanted, need, item.found.path, item.name.short)
            self.renewed.update(item.bad)
            return "imported"
        for sha in item.damaged:
            if sha not in self.renewed:
                self.store.drop(sha)
        self.renewed.update(item.damaged)
        self.store.drop_broken_partials(item.blobs)
        short = self.store.name_of(item.found.path)
        source = self._at_source(item.name)
        if source == item.name:
            self.pull.run(short, self.options.insecure, item.name.short, item.wanted)
        else:
            # The name of the mirror is only borrowed: the model is known by its own, with the same digest.
            self.pull.run(source.full, self.options.insecure, item.name.short, item.wanted)
            self.api.copy(source.full, short)
            self.api.delete(source.full)
        return "pulled"

    def left_behind(self, item: Item) -> Found | None:
        """The name of the mirror, where a pull through it was interrupted before that was removed."""
        source = self._at_source(item.name)
        if source.key == item.name.key:
            return None
        found = self.store.find(source)
        return None if found.state == "absent" else found

    def _at_source(self, name: Name) -> Name:
        return name._replace(host=self.options.registry) if self.options.registry else name
