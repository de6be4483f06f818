"""A Dify at one moment, to be held against the same one later."""

from __future__ import annotations

import dataclasses

import node
import rows as kept
import seed as seeds


@dataclasses.dataclass(frozen=True)
class State:
    release: str
    head: str
    rows: kept.Rows
    whole: kept.Whole
    files: dict[str, str]
    databases: set[str]
    plugins: set[str]

    @classmethod
    def now(cls) -> State:
        stored = seeds.storage()
        return cls(node.current(), node.head(), kept.rows(), kept.whole(), stored, node.databases(), plugins())

    def is_kept(self) -> None:
        """Nothing of what was there then is gone or changed, and no copy of a database is left over."""
        now = State.now()
        assert kept.lost(self.rows, now.rows) == {}
        assert self.whole.shrunk(now.whole) == {}
        assert self.files.items() <= now.files.items()
        assert now.databases == self.databases | ({"dify_plugin"} if now.plugins else set())

    def is_back(self, seed: seeds.Seed) -> None:
        """As if nobody had tried: the same release on the same data, and it works."""
        self._is_back(seed, State.now())

    def is_rolled_back(self, seed: seeds.Seed) -> None:
        """The same, by rollback.yml: 0.15 has no plugin daemon, and what was installed stays for the next time."""
        now = State.now()
        if "dify_plugin" not in self.databases:
            now = dataclasses.replace(
                now, databases=now.databases - {"dify_plugin"}, plugins=set(), whole=now.whole.without("dify_plugin")
            )
        self._is_back(seed, now)

    def _is_back(self, seed: seeds.Seed, now: State) -> None:
        assert (now.release, now.head, now.databases) == (self.release, self.head, self.databases)
        assert kept.lost(self.rows, now.rows) == {}
        assert self.whole.differences(now.whole) == []
        assert (now.files, now.plugins) == (self.files, self.plugins)
        images = {about[0] for name, about in node.containers().items() if name.startswith("dify-api")}
        assert images == {f"langgenius/dify-api:{self.release}"}
        seeds.grown(seed, self.release)


def plugins() -> set[str]:
    """What the plugin daemon has installed, by workspace."""
    if "dify_plugin" not in node.databases():
        return set()
    if node.sql("SELECT to_regclass('public.plugin_installations') IS NULL", "dify_plugin") == [["t"]]:
        return set()
    found = node.sql("SELECT tenant_id, plugin_unique_identifier FROM plugin_installations", "dify_plugin")
    return {" ".join(row) for row in found}
