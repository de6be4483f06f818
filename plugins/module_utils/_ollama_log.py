# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""What an Ollama server says about itself when it starts, and why it ended.

Pure: lines of its log in, plain data out. The lines are Go's slog in its text form (C(time=… level=INFO msg="…"
key=value)), between those of its web framework and, for the ends that matter, bare ones such as C(Error: mkdir …).
Releases before 0.7 write C(2025/01/27 17:06:44 routes.go:1238: INFO server config env="…").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.stack.plugins.module_utils._ollama_systemd import masked
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = ["ServerLog", "error_lines", "parse_line", "parse_log", "parse_settings", "parse_size"]

_PAIR = re.compile(r'([A-Za-z_][\w.-]*)=("(?:[^"\\]|\\.)*"|\S*)(?:\s+|$)')
_OLD = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (\S+:\d+): ([A-Z]+) (.*?)((?: [A-Za-z_]\w*=.*)?)$")
# A Go map is printed without quotes, and a value such as OLLAMA_ORIGINS holds blanks and colons. The names of settings
# are the only words in capitals with an underscore before a colon, but for the proxies' small ones.
_SETTING = re.compile(r"(?:^| )([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|https?_proxy|no_proxy):")
_PROXY = re.compile(r"_proxy$", re.IGNORECASE)
_BARE_LOGIN = re.compile(r"^[^/\s@]+@(?=\S)")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_GENERIC_NAME = re.compile(r"^(CUDA|ROCm|Vulkan|HIP)\d+$", re.IGNORECASE)
# What a look at GPUs remarks on its way. The text of the message decides; the rest of the line is kept as detail.
_REMARKS = (
    ("driver_too_old", re.compile(r"driver (?:is )?too old", re.IGNORECASE)),
    ("dropped_rocm", re.compile(r"dropping ROCm device|amdgpu is not supported|unsupported Radeon", re.IGNORECASE)),
    ("dropped_igpu", re.compile(r"dropping integrated GPU|integrated GPU", re.IGNORECASE)),
    ("capability", re.compile(r"compute capability not in compiled|CUDA GPU is too old", re.IGNORECASE)),
    ("visible_devices", re.compile(r"user overrode visible devices", re.IGNORECASE)),
    ("no_rocm", re.compile(r"unable to verify rocm library|no compatible amdgpu", re.IGNORECASE)),
    ("timeout", re.compile(r"discovery (?:watchdog )?timed out|discovery: timed out", re.IGNORECASE)),
    ("discovery", re.compile(r"failure during .*GPU discovery|unknown error initializing cuda", re.IGNORECASE)),
)
_ERROR = re.compile(
    r"^(Error: |panic: |fatal error: |Traceback |\S*(?:Error|Exception): )|level=ERROR|error while loading shared lib"
    r"|No such file or directory|Failed at step|[Pp]ermission denied|cannot execute|[Oo]ut of memory|oom-kill"
)
# What systemd says of every end is no reason, and the state of the unit has it, too.
_NOISE = re.compile(
    r"^(\[GIN|\s|goroutine |Started |Starting |Stopped |Stopping )"
    r"|^\S+: (?:Scheduled restart|Consumed|Deactivated|Main process exited|Failed with result|Start request repeated)"
    r"|^$|level=(?:INFO|DEBUG)|^Couldn't find .*Generating new private key|^Your new public key|^ssh-ed25519 "
)


@dataclass
class ServerLog:
    """The start of a server, as far as its log tells it."""

    settings: dict[str, str] = field(default_factory=dict)
    compute: list[dict[str, Any]] = field(default_factory=list)
    listening: str = ""
    version: str = ""
    default_context: int = 0
    total_vram: int = 0
    remarks: list[dict[str, str]] = field(default_factory=list)


def parse_line(line: str) -> dict[str, str]:
    """The pairs of a slog line, among them C(msg) and C(level); empty for a line of another kind."""
    line = line.strip()
    old = _OLD.match(line)
    if old:
        pairs = {key: _unquote(value) for key, value in _PAIR.findall(old.group(4).strip())}
        return {"source": old.group(1), "level": old.group(2), "msg": old.group(3).strip(), **pairs}
    if not line.startswith(("time=", "level=")):
        return {}
    return {key: _unquote(value) for key, value in _PAIR.findall(line)}


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:  # Go has escapes that JSON has not
        return value[1:-1].replace('\\"', '"').replace("\\\\", "\\")


def parse_settings(text: str) -> dict[str, str]:
    """The environment that a server says it has, from C(map[A:1 B:2]), without logins of proxies."""
    inner = text.strip()
    if inner.startswith("map[") and inner.endswith("]"):
        inner = inner[len("map[") : -1]
    found = list(_SETTING.finditer(inner))
    ends = [one.start() for one in found[1:]] + [len(inner)]
    values = masked({one.group(1): inner[one.end() : end] for one, end in zip(found, ends)})
    # Go takes a proxy without a scheme, too.
    return {name: _BARE_LOGIN.sub("***@", value) if _PROXY.search(name) else value for name, value in values.items()}


def parse_size(text: str) -> int:
    """Bytes of C(23.5 GiB); 0 for what is no size."""
    found = re.match(r"^([\d.]+) ?([KMGT]iB|B)$", text.strip())
    return int(float(found.group(1)) * _UNITS[found.group(2)]) if found else 0


def parse_log(lines: Iterable[str]) -> ServerLog:
    """The last start in these lines."""
    log = ServerLog()
    for line in lines:
        pairs = parse_line(line)
        message = pairs.get("msg", "")
        if message == "server config":
            log = ServerLog(settings=parse_settings(pairs.get("env", "")))
        elif message == "inference compute":
            log.compute.append(_device(pairs))
        elif message == "vram-based default context":
            log.default_context = int(pairs.get("default_num_ctx") or 0)
            log.total_vram = parse_size(pairs.get("total_vram", ""))
        elif message.startswith("Listening on "):
            found = re.match(r"Listening on (\S+) \(version (\S+?)\)", message)
            if found:
                log.listening, log.version = found.groups()
        elif message:
            _remark(log, message, pairs)
    return log


def _device(pairs: dict[str, str]) -> dict[str, Any]:
    name = pairs.get("name", "")
    if not name or _GENERIC_NAME.match(name):
        name = pairs.get("description") or name
    return {
        "id": pairs.get("id", ""),
        "library": pairs.get("library", ""),
        "name": name,
        "driver": pairs.get("driver", ""),
        "compute": pairs.get("compute", ""),
        "total": parse_size(pairs.get("total", "")),
        "available": parse_size(pairs.get("available", "")),
    }


def _remark(log: ServerLog, message: str, pairs: dict[str, str]) -> None:
    for kind, pattern in _REMARKS:
        if pattern.search(message):
            rest = [
                f"{key}={value}"
                for key, value in pairs.items()
                if key not in ("time", "level", "source", "msg") and value
            ]
            detail = str(mask_urls(" ".join([message, *rest])))[:300]
            if not any(one["kind"] == kind for one in log.remarks):
                log.remarks.append({"kind": kind, "detail": detail})
            return


def error_lines(lines: Iterable[str], limit: int = 5, any_line: bool = False) -> list[str]:
    """The last lines that say what went wrong; where none does and `any_line`, the last ones that are no routine.

    `any_line` is for a server that has ended, so it looks at its last run alone.
    """
    kept = [line.rstrip() for line in lines]
    if any_line:
        kept = _last_run(kept)
    chosen = [line for line in kept if _ERROR.search(line) and not line.startswith("[GIN")]
    if not chosen and any_line:
        chosen = [line for line in kept if not _NOISE.search(line)]
    unique = list(dict.fromkeys(_short(line) for line in chosen))
    return unique[-limit:]


def _last_run(lines: list[str]) -> list[str]:
    """The lines since systemd's last start of it, or of the one before where it has said nothing since."""
    runs: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("Started "):
            runs.append([])
        runs[-1].append(line)
    return next((run for run in reversed(runs) if any(not _NOISE.search(line) for line in run)), lines)


def _short(line: str) -> str:
    pairs = parse_line(line)
    text = line.strip()
    if pairs.get("msg"):
        rest = [pairs[key] for key in ("error", "err") if pairs.get(key)]
        text = ": ".join([pairs["msg"], *rest])
    return str(mask_urls(text))[:300]
