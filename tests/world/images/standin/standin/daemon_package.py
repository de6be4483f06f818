# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plugin packages: reading .difypkg files as the daemon does, and packing small ones for tests.

    python3 -m standin.daemon_package langgenius/ollama 0.0.6 /tmp/ollama.difypkg [--signed]

A signature of this world is a keyed hash in the zip's comment. It stands where the real one stands and says the same:
the world's own key is "official", any other key is one that an operator may trust.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from standin.daemon_versions import Generation

OFFICIAL_KEY = b"llmops.stack world: official marketplace key"
VERIFICATION_FILE = ".verification.dify.json"
IDENTIFIER = re.compile(
    r"^(?:[a-z0-9_-]{1,64}/)?[a-z0-9_-]{1,255}:\d{1,4}(?:\.\d{1,4}){1,3}(?:-\w{1,16})?@[a-f0-9]{32,64}$"
)
EPOCH = (2024, 9, 20, 0, 0, 0)  # fixed times make equal content an equal file
MAIN = 'from standin.daemon_plugin import main\n\nif __name__ == "__main__":\n    main()\n'
ICON = '<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"><rect width="16" height="16" rx="4"/></svg>\n'


class PackageError(Exception):
    pass


@dataclass(frozen=True)
class Package:
    files: Mapping[str, bytes]
    manifest: dict[str, Any]
    comment: bytes

    @property
    def plugin_id(self) -> str:
        return f"{self.manifest['author']}/{self.manifest['name']}"

    @property
    def identifier(self) -> str:
        return f"{self.plugin_id}:{self.manifest['version']}@{checksum(self.files)}"

    def signed_by(self, key: bytes) -> bool:
        try:
            signature = json.loads(self.comment)["signature"]
        except (ValueError, KeyError, TypeError):
            return False
        return hmac.compare_digest(str(signature), _signature(self.files, key))

    @property
    def verification(self) -> dict[str, Any] | None:
        content = self.files.get(VERIFICATION_FILE)
        return json.loads(content) if content else None


def read(data: bytes) -> Package:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as error:
        raise PackageError("difypkg: not a valid difypkg file") from error
    if "manifest.yaml" not in files:
        raise PackageError("open manifest.yaml: file does not exist")
    return Package(files, _manifest(files), archive.comment)


def _manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    text = files["manifest.yaml"].decode(errors="replace")
    try:
        manifest = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PackageError(f"yaml: {error}") from error
    if not isinstance(manifest, dict):
        raise PackageError("yaml: unmarshal errors:\n  line 1: cannot unmarshal into plugin_entities.PluginDeclaration")
    for key in ("label", "description"):
        value = manifest.get(key)
        if value is not None and not isinstance(value, dict):
            line = 1 + next(number for number, row in enumerate(text.splitlines()) if row.startswith(f"{key}:"))
            shown = str(value) if len(str(value)) <= 10 else f"{str(value)[:7]}..."
            raise PackageError(
                f"yaml: unmarshal errors:\n  line {line}: cannot unmarshal !!str `{shown}` "
                "into plugin_entities.I18nObject"
            )
    for key in ("version", "type", "author", "name", "label", "icon", "resource", "plugins", "meta", "created_at"):
        if not manifest.get(key):
            field = "".join(part.capitalize() for part in key.split("_"))
            raise PackageError(
                f"Key: 'PluginDeclaration.{field}' Error:Field validation for '{field}' failed on the 'required' tag"
            )
    return manifest


def checksum(files: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(hashlib.sha256(name.encode()).digest())
        total.update(hashlib.sha256(files[name]).digest())
    return total.hexdigest()


def declaration(package: Package, behaviour: Generation, icons: Mapping[str, str]) -> dict[str, Any]:
    """The manifest in the form of the daemon's replies; icons maps file names to their names in assets/."""
    manifest = package.manifest
    plugins = manifest["plugins"]
    meta = {key: manifest["meta"].get(key) for key in ("version", "arch", "runner")}
    if behaviour.dark_icons:
        meta["minimum_dify_version"] = manifest["meta"].get("minimum_dify_version")
    permission = {"tool": {"enabled": False}, "model": {}, **(manifest["resource"].get("permission") or {})}
    found: dict[str, Any] = {
        "version": str(manifest["version"]),
        "type": manifest["type"],
        "author": manifest["author"],
        "name": manifest["name"],
        "label": manifest["label"],
        "description": manifest.get("description") or {},
        "icon": icons.get(manifest["icon"], ""),
    }
    if behaviour.dark_icons:
        found["icon_dark"] = icons.get(manifest.get("icon_dark", ""), "")
    found.update(
        {
            "resource": {"memory": manifest["resource"].get("memory", 0), "permission": permission},
            "plugins": {kind: plugins.get(kind) for kind in behaviour.plugin_kinds},
            "meta": meta,
            "tags": manifest.get("tags") or [],
            "created_at": manifest["created_at"],
            "verified": package.signed_by(OFFICIAL_KEY),
        }
    )
    for name in plugins.get("models") or []:
        found["model"] = _provider(yaml.safe_load(package.files[name]), behaviour, icons)
    return found


def _provider(provider: dict[str, Any], behaviour: Generation, icons: Mapping[str, str]) -> dict[str, Any]:
    def icon(key: str) -> dict[str, str] | None:
        value = provider.get(key)
        return {language: icons.get(name, name) for language, name in value.items()} if value else None

    dark = ("icon_small_dark", "icon_large_dark") if behaviour.dark_icons else ()
    return {
        "provider": provider["provider"],
        "label": provider["label"],
        "description": provider.get("description"),
        **{key: icon(key) for key in ("icon_small", "icon_large", *dark)},
        "background": provider.get("background"),
        "help": provider.get("help"),
        "supported_model_types": provider["supported_model_types"],
        "configurate_methods": provider["configurate_methods"],
        "provider_credential_schema": provider.get("provider_credential_schema"),
        "model_credential_schema": provider.get("model_credential_schema"),
        "models": [],
    }


def pack(
    plugin_id: str = "langgenius/ollama",
    version: str = "0.0.6",
    *,
    key: bytes | None = None,
    provider: str = "",
    replace: Mapping[str, str | None] | None = None,
) -> bytes:
    """A package like the official Ollama plugin.

    replace: other file contents, None leaves a file out; key signs it; provider: its name where it is not the plugin's.
    """
    contents = {
        name: text
        for name, text in {**_sources(plugin_id, version, provider), **(replace or {})}.items()
        if text is not None
    }
    files = {name: text.encode() for name, text in contents.items()}
    comment = b""
    if key is not None:
        files[VERIFICATION_FILE] = json.dumps({"authorized_category": plugin_id.split("/")[0]}).encode()
        comment = json.dumps({"signature": _signature(files, key)}).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), files[name])
        archive.comment = comment
    return target.getvalue()


def _signature(files: Mapping[str, bytes], key: bytes) -> str:
    return hmac.new(key, checksum(files).encode(), hashlib.sha256).hexdigest()


def _sources(plugin_id: str, version: str, provider_name: str) -> dict[str, str]:
    author, name = plugin_id.split("/")
    title = name.capitalize()
    manifest = {
        "version": version,
        "type": "plugin",
        "author": author,
        "name": name,
        "label": {"en_US": title},
        "description": {"en_US": title},
        "icon": "icon.svg",
        "resource": {
            "memory": 268435456,
            "permission": {
                "tool": {"enabled": True},
                "model": {
                    "enabled": True,
                    "llm": True,
                    "text_embedding": True,
                    "rerank": True,
                    "tts": False,
                    "speech2text": False,
                    "moderation": False,
                },
            },
        },
        "plugins": {"models": [f"provider/{name}.yaml"]},
        "meta": {
            "version": "0.0.1",
            "arch": ["amd64", "arm64"],
            "runner": {"language": "python", "version": "3.12", "entrypoint": "main"},
        },
        "created_at": "2024-09-20T00:13:50.29298939-04:00",
    }
    provider = {
        "provider": provider_name or name,
        "label": {"en_US": title},
        "description": {"en_US": title},
        "icon_small": {"en_US": "icon.svg"},
        "icon_large": {"en_US": "icon.svg"},
        "background": "#F9FAFB",
        "help": {
            "title": {"en_US": f"How to integrate with {title}", "zh_Hans": f"如何集成 {title}"},
            "url": {"en_US": "https://docs.dify.ai/tutorials/model-configuration/ollama"},
        },
        "supported_model_types": ["llm", "text-embedding"],
        "configurate_methods": ["customizable-model"],
        "model_credential_schema": {
            "model": {
                "label": {"en_US": "Model Name", "zh_Hans": "模型名称"},
                "placeholder": {"en_US": "Enter your model name", "zh_Hans": "输入模型名称"},
            },
            "credential_form_schemas": [
                _field(
                    "base_url",
                    "Base URL",
                    "text-input",
                    None,
                    "Base url of Ollama server, e.g. http://192.168.1.100:11434",
                    "Ollama server 的基础 URL\uff0c例如 http://192.168.1.100:11434",
                ),
                _field("mode", "Completion mode", "select", "chat"),
                _field("context_size", "Model context size", "text-input", "4096"),
                _field("max_tokens", "Upper bound for max tokens", "text-input", "4096"),
                _field("vision_support", "Vision support", "radio", "false"),
                _field("function_call_support", "Function call support", "radio", "false"),
            ],
        },
    }
    # A dependency would be installed, from an index.
    requirements = "# Nothing: daemon_plugin runs in the daemon's own Python.\n"
    return {
        "manifest.yaml": yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True),
        f"provider/{name}.yaml": yaml.safe_dump(provider, sort_keys=False, allow_unicode=True),
        "main.py": MAIN,
        "requirements.txt": requirements,
        "README.md": f"# {title}\n",
        "_assets/icon.svg": ICON,
    }


def _field(
    variable: str, label: str, kind: str, default: str | None, hint: str = "", hint_zh: str = ""
) -> dict[str, Any]:
    return {
        "variable": variable,
        "label": {"en_US": label, "zh_Hans": label},
        "type": kind,
        "required": True,
        "default": default,
        "options": [],
        "placeholder": {"en_US": hint, "zh_Hans": hint_zh} if hint else None,
        "max_length": 0,
        "show_on": [],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack a small plugin.")
    parser.add_argument("plugin_id")
    parser.add_argument("version")
    parser.add_argument("target", type=Path)
    parser.add_argument("--signed", action="store_true", help="with the world's official key")
    options = parser.parse_args()
    data = pack(options.plugin_id, options.version, key=OFFICIAL_KEY if options.signed else None)
    options.target.write_bytes(data)
    print(read(data).identifier)


if __name__ == "__main__":
    main()
