# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the daemon knows about packages and installations, shared by its management and dispatch routes."""

from __future__ import annotations

import datetime
import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

from standin import daemon_package
from standin.daemon_cache import Cache
from standin.daemon_config import Config
from standin.daemon_database import Database, DatabaseError, Row
from standin.daemon_package import OFFICIAL_KEY, Package, PackageError
from standin.daemon_versions import Generation

BAD_SIGNATURE = "plugin verification has been enabled, and the plugin you want to install has a bad signature"


class Registry:
    def __init__(self, config: Config, behaviour: Generation, database: Database, cache: Cache) -> None:
        self.config = config
        self.behaviour = behaviour
        self.database = database
        self.cache = cache

    # Packages

    def upload(self, data: bytes, verify_signature: bool) -> dict[str, Any]:
        """Store a package; raises PackageError or DatabaseError with the text for the client."""
        package = daemon_package.read(data)
        checked = self.config.force_signature or verify_signature
        if checked and not self._trusted(package):
            raise PackageError(BAD_SIGNATURE)
        declaration = daemon_package.declaration(package, self.behaviour, self._save_icons(package))
        path = self.config.package_path / package.identifier
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._declare(package, declaration)
        return self._decoded(package, declaration, checked)

    def decode(self, identifier: str) -> dict[str, Any]:
        path = self.config.package_path / identifier
        if not path.is_file():
            raise PackageError("plugin package not found, please upload it firstly")
        package = daemon_package.read(path.read_bytes())
        declaration = daemon_package.declaration(package, self.behaviour, self._save_icons(package))
        return self._decoded(package, declaration, self.config.force_signature)

    def _decoded(self, package: Package, declaration: dict[str, Any], checked: bool) -> dict[str, Any]:
        reply = {"manifest": declaration, "unique_identifier": package.identifier}
        if self.behaviour.verification:
            known = self.behaviour.third_party_category or package.signed_by(OFFICIAL_KEY)
            reply["verification"] = package.verification if checked and known else None
        return reply

    def _declare(self, package: Package, declaration: dict[str, Any]) -> None:
        self.database.execute(
            "INSERT INTO plugin_declarations (plugin_unique_identifier, plugin_id, declaration) VALUES (%s, %s, %s) "
            "ON CONFLICT (plugin_unique_identifier) DO NOTHING",
            package.identifier,
            package.plugin_id,
            json.dumps(declaration),
        )

    def readme(self, identifier: str) -> str:
        path = self.config.package_path / identifier
        if not path.is_file():
            raise PackageError("plugin package not found, please upload it firstly")
        return daemon_package.read(path.read_bytes()).files.get("README.md", b"").decode(errors="replace")

    def _trusted(self, package: Package) -> bool:
        if package.signed_by(OFFICIAL_KEY):
            return True
        keys = (Path(name) for name in self.config.third_party_keys)
        return any(key.is_file() and package.signed_by(key.read_bytes()) for key in keys)

    def _save_icons(self, package: Package) -> dict[str, str]:
        names = {}
        for path, content in package.files.items():
            if path.startswith("_assets/"):
                name = path.removeprefix("_assets/")
                names[name] = f"{hashlib.sha256(content).hexdigest()}{Path(name).suffix}"
                self.config.media_path.mkdir(parents=True, exist_ok=True)
                (self.config.media_path / names[name]).write_bytes(content)
        return names

    # Declarations and installations

    def declaration(self, identifier: str) -> dict[str, Any] | None:
        """Cached in Redis, so that without Redis no list can be made."""
        key = f"declaration_cache:local:{identifier}"
        found = self.cache.get(key)
        if found is None:
            row = self.database.one(
                "SELECT declaration FROM plugin_declarations WHERE plugin_unique_identifier = %s", identifier
            )
            if row is None:
                return None
            found = json.loads(row["declaration"])
            self.cache.set(key, found)
        return dict(found)

    def restore(self, identifier: str) -> None:
        """Declare again what an upgrade took away, as long as its package is there."""
        path = self.config.package_path / identifier
        if path.is_file():
            package = daemon_package.read(path.read_bytes())
            self._declare(package, daemon_package.declaration(package, self.behaviour, self._save_icons(package)))

    def installation(self, tenant: str, plugin_id: str) -> Row | None:
        """For a call: from Redis where the version caches it there, else from PostgreSQL."""
        key = f"plugin_id:{plugin_id}:tenant_id:{tenant}"
        if self.behaviour.caches_installation:
            found = self.cache.get(key)
            if found is not None:
                return dict(found)
        row = self.database.one(
            "SELECT * FROM plugin_installations WHERE tenant_id = %s AND plugin_id = %s", tenant, plugin_id
        )
        if row is not None and self.behaviour.caches_installation:
            self.cache.set(key, row)
        return row

    def installed(self, tenant: str, identifier: str) -> Row | None:
        return self.database.one(
            "SELECT * FROM plugin_installations WHERE tenant_id = %s AND plugin_unique_identifier = %s",
            tenant,
            identifier,
        )

    def present(self, identifier: str) -> bool:
        """Whether any tenant has it."""
        return self.database.one("SELECT id FROM plugins WHERE plugin_unique_identifier = %s", identifier) is not None

    def add(self, tenant: str, identifier: str, source: str, meta: dict[str, Any]) -> None:
        """The rows of an installation. Raises DatabaseError when the tenant has the plugin in another version."""
        declaration = self.declaration(identifier) or {}
        plugin_id = plugin_id_of(identifier)
        self.database.execute(
            "INSERT INTO plugin_installations (tenant_id, plugin_id, plugin_unique_identifier, runtime_type, "
            "endpoints_setups, endpoints_active, source, meta) VALUES (%s, %s, %s, 'local', 0, 0, %s, %s)",
            tenant,
            plugin_id,
            identifier,
            source,
            json.dumps(meta),
        )
        self._refer(identifier, source)
        if "model" in declaration:
            self.database.execute(
                "INSERT INTO ai_model_installations (tenant_id, provider, plugin_unique_identifier, plugin_id) "
                "VALUES (%s, %s, %s, %s)",
                tenant,
                declaration["model"]["provider"],
                identifier,
                plugin_id,
            )

    def remove(self, row: Row) -> bool:
        """Drop an installation; true when nobody has the plugin any more."""
        tenant, identifier = row["tenant_id"], row["plugin_unique_identifier"]
        self.database.execute("DELETE FROM plugin_installations WHERE id = %s", row["id"])
        self.database.execute(
            "DELETE FROM ai_model_installations WHERE tenant_id = %s AND plugin_unique_identifier = %s",
            tenant,
            identifier,
        )
        self.forget(tenant, row["plugin_id"])
        return self._unrefer(identifier)

    def replace(self, row: Row, identifier: str, meta: dict[str, Any]) -> bool:
        """Point an installation at another version; true when nobody has the old one any more."""
        tenant, old = row["tenant_id"], row["plugin_unique_identifier"]
        self.database.execute(
            "UPDATE plugin_installations SET plugin_unique_identifier = %s, meta = %s, updated_at = now() "
            "WHERE id = %s",
            identifier,
            json.dumps(meta),
            row["id"],
        )
        self.database.execute(
            "UPDATE ai_model_installations SET plugin_unique_identifier = %s, updated_at = now() "
            "WHERE tenant_id = %s AND plugin_unique_identifier = %s",
            identifier,
            tenant,
            old,
        )
        self._refer(identifier, row["source"])
        self.forget(tenant, row["plugin_id"])
        unused = self._unrefer(old)
        if unused and self.behaviour.upgrade_drops_declaration:
            self.database.execute("DELETE FROM plugin_declarations WHERE plugin_unique_identifier = %s", old)
            self.cache.delete(f"declaration_cache:local:{old}")
        return unused

    def forget(self, tenant: str, plugin_id: str) -> None:
        if self.behaviour.caches_installation:
            self.cache.delete(f"plugin_id:{plugin_id}:tenant_id:{tenant}")

    def _refer(self, identifier: str, source: str) -> None:
        self.database.execute(
            "INSERT INTO plugins (plugin_unique_identifier, plugin_id, refers, install_type, manifest_type, source) "
            "VALUES (%s, %s, 1, 'local', '', %s) ON CONFLICT (plugin_unique_identifier) "
            "DO UPDATE SET refers = plugins.refers + 1",
            identifier,
            plugin_id_of(identifier),
            source,
        )

    def _unrefer(self, identifier: str) -> bool:
        self.database.execute("UPDATE plugins SET refers = refers - 1 WHERE plugin_unique_identifier = %s", identifier)
        return bool(
            self.database.execute(
                "DELETE FROM plugins WHERE plugin_unique_identifier = %s AND refers <= 0 RETURNING id", identifier
            )
        )


def plugin_id_of(identifier: str) -> str:
    return identifier.split(":")[0]


def version_of(identifier: str) -> str:
    return identifier.split(":")[1].split("@")[0]


def checksum_of(identifier: str) -> str:
    return identifier.split("@")[1]


def shown(value: Any) -> Any:
    """A column as the daemon's JSON shows it."""
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return str(value) if isinstance(value, uuid.UUID) else value


__all__ = ["DatabaseError", "PackageError", "Registry", "checksum_of", "plugin_id_of", "shown", "version_of"]
