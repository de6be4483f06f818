# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection.
"""From the variables of role ollama to the environment of its server, and what is refused on the way.

Ollama replaces a setting that it cannot read by a default and starts. An operator learns of it weeks later, if at all;
so every value is read here as Ollama would read it, and refused before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.llmops.stack.plugins.module_utils import _ollama_values as values
from ansible_collections.llmops.stack.plugins.module_utils._ollama_systemd import is_secret, masked
from ansible_collections.llmops.stack.plugins.module_utils._ollama_versions import compare
from ansible_collections.llmops.stack.plugins.module_utils._urls import mask_urls

__all__ = ["settings"]

_COUNT = values.whole(2**31 - 1)
_BYTES = values.whole(2**63 - 1)
_WRITE_COUNT = "Write a whole number, or 0 to leave it to Ollama."
_WRITE_BOOLEAN = "Write true or false."
_WRITE_DURATION = "Write a duration such as 30m or 1h30m, a number of seconds, or -1 for without end."


class Setting(NamedTuple):
    variable: str  # of the role; empty where only ollama_env can set it
    env: str
    read: Callable[[Any], str]
    silently: str  # what Ollama would do with a value that it cannot read
    write: str


_TABLE = (
    Setting("ollama_models_dir", "OLLAMA_MODELS", values.path, "", "Write the absolute path of a directory."),
    Setting(
        "ollama_keep_alive", "OLLAMA_KEEP_ALIVE", values.duration, "it would keep models for 5m", _WRITE_DURATION
    ),
    Setting("ollama_load_timeout", "OLLAMA_LOAD_TIMEOUT", values.duration, "it would wait for 5m", _WRITE_DURATION),
    Setting("ollama_num_parallel", "OLLAMA_NUM_PARALLEL", _COUNT, "it would take its default", _WRITE_COUNT),
    Setting("ollama_max_loaded_models", "OLLAMA_MAX_LOADED_MODELS", _COUNT, "it would take its default", _WRITE_COUNT),
    Setting("ollama_max_queue", "OLLAMA_MAX_QUEUE", _COUNT, "it would queue 512 requests", _WRITE_COUNT),
    Setting(
        "ollama_context_length", "OLLAMA_CONTEXT_LENGTH", _COUNT, "it would choose by the memory of the GPUs",
        "Write a number of tokens such as 8192, or 0 to leave it to Ollama.",
    ),
    Setting(
        "ollama_gpu_overhead", "OLLAMA_GPU_OVERHEAD", _BYTES, "it would reserve nothing",
        "Write a number of bytes, without a unit.",
    ),
    Setting(
        "ollama_flash_attention", "OLLAMA_FLASH_ATTENTION", values.boolean, "",
        "Write true or false, or leave it empty to let Ollama choose.",
    ),
    Setting("ollama_noprune", "OLLAMA_NOPRUNE", values.switch, "", _WRITE_BOOLEAN),
    Setting("ollama_sched_spread", "OLLAMA_SCHED_SPREAD", values.switch, "", _WRITE_BOOLEAN),
    Setting("ollama_no_cloud", "OLLAMA_NO_CLOUD", values.switch, "", _WRITE_BOOLEAN),
    Setting(
        "ollama_debug", "OLLAMA_DEBUG", values.level, "it would log as little as ever",
        "Write 0, 1 (debug) or 2 (trace).",
    ),
    Setting(
        "ollama_origins", "OLLAMA_ORIGINS", values.origins, "",
        "Write a list of origins such as https://chat.example.com, each with at most one *.",
    ),
    Setting("ollama_llm_library", "OLLAMA_LLM_LIBRARY", values.text, "", "Write the name of a folder of lib/ollama."),
    Setting(
        "ollama_https_proxy", "HTTPS_PROXY", values.proxy, "", "Write a URL such as http://proxy.example.com:3128."
    ),
    *(
        Setting("", name, values.boolean, "", _WRITE_BOOLEAN)
        for name in (
            "OLLAMA_AUTH", "OLLAMA_DEBUG_LOG_REQUESTS", "OLLAMA_GO_TEMPLATE", "OLLAMA_IGPU_ENABLE",
            "OLLAMA_INTEL_GPU", "OLLAMA_MULTIUSER_CACHE", "OLLAMA_NEW_ENGINE", "OLLAMA_NOHISTORY", "OLLAMA_VULKAN",
        )
    ),
    Setting("", "OLLAMA_MAX_TRANSFER_STREAMS", _COUNT, "it would take 4", _WRITE_COUNT),
    Setting("", "HSA_OVERRIDE_GFX_VERSION", values.gfx_version, "", "Write three numbers, such as 10.3.0."),
)  # fmt: skip
_BY_ENV = {setting.env: setting for setting in _TABLE}

# Settings that more than one variable or the role itself decides on.
_RESERVED = {
    "OLLAMA_HOST": "set ollama_bind and ollama_port instead, which the firewall and the checks follow, too",
    "OLLAMA_MODELS": "set ollama_models_dir instead, which is made and looked after",
    "OLLAMA_NO_CLOUD": "set ollama_no_cloud instead",
    "OLLAMA_ORIGINS": "set ollama_origins instead",
    "OLLAMA_KV_CACHE_TYPE": "set ollama_kv_cache_type instead",
    "HTTPS_PROXY": "set ollama_https_proxy instead, which keeps local addresses out of it",
    "NO_PROXY": "set ollama_no_proxy instead",
    "CUDA_VISIBLE_DEVICES": "set ollama_visible_devices, or ollama_gpu: cpu, instead",
    "ROCR_VISIBLE_DEVICES": "set ollama_visible_devices, or ollama_gpu: cpu, instead",
    "HTTP_PROXY": "leave it out: models are pulled over https, and it can break the connections of clients; "
    "ollama_https_proxy is what pulls need",
    "HOME": "leave it out: it is the home of ollama_user, and with another one the server makes a second store",
    "OLLAMA_API_KEY": "leave it out: the server knows no login; ollama_allow says who may reach it",
    "OLLAMA_REGISTRY": "leave it out: Ollama has no such setting; ollama_registry makes the role pull from a mirror",
    "OLLAMA_REGISTRIES": "leave it out: Ollama has no such setting; ollama_registry makes the role pull from a mirror",
    "OLLAMA_TMPDIR": "leave it out: Ollama does not read it any more",
    "OLLAMA_RUNNERS_DIR": "leave it out: Ollama does not read it any more",
}  # fmt: skip

# Since 0.30 llama-server reads this one; before, all but three were dropped with a line in the log.
_CACHE_TYPES = ("f16", "q8_0", "q4_0")
_CACHE_TYPES_LLAMA = (*_CACHE_TYPES, "f32", "bf16", "q4_1", "q5_0", "q5_1", "iq4_nl")
_FULL_CACHE = ("", "f16", "f32", "bf16")


def settings(variables: Mapping[str, Any], gpus: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The environment of the server.

    Args:
        variables: the variables of the role by their names; one that is absent, empty or (for counts) 0 is not set.
        gpus: the fact of this name; it tells for which vendor ollama_visible_devices is meant.

    Returns:
        C(env) (sorted, text to text), C(shown) (the same without secrets) and C(refusals) (sentences).
    """
    made = _Environment(variables, list(gpus))
    made.table()
    made.host()
    made.no_proxy()
    made.cache_type()
    made.devices()
    made.extra()
    env = {key: value for key, value in sorted(made.env.items()) if value}
    return {"env": env, "shown": masked(env), "refusals": made.refusals}


class _Environment:
    def __init__(self, variables: Mapping[str, Any], gpus: list[Mapping[str, Any]]) -> None:
        self.variables = variables
        self.gpus = gpus
        self.env: dict[str, str] = {}
        self.refusals: list[str] = []

    def refuse(self, name: str, value: Any, why: str, write: str) -> None:
        self.refusals.append(f"{name} is {mask_urls(str(value))!r}, {why}. {write}")

    def add(self, setting: Setting, name: str, value: Any) -> None:
        try:
            self.env[setting.env] = setting.read(value)
        except ValueError as error:
            why = str(error)
            if setting.silently and why == values.CANNOT_READ:
                why += f": {setting.silently}, and start all the same"
            self.refuse(name, value, why, setting.write)

    def table(self) -> None:
        for setting in _TABLE:
            if setting.variable and setting.variable in self.variables:
                self.add(setting, setting.variable, self.variables[setting.variable])
        if self.variables.get("ollama_install") == "container":
            self.env.pop("OLLAMA_MODELS", None)  # there the store is mounted where the image has it

    def host(self) -> None:
        bind, port = self.variables.get("ollama_bind") or "auto", str(self.variables.get("ollama_port", 11434))
        gateways = bool(self.variables.get("ollama_gateways"))
        callers = ("ollama_gateways",) if gateways else ("ollama_containers", "ollama_allow")
        others = [name for name in callers if self.variables.get(name)]
        host = self.everywhere() if others else "127.0.0.1"
        if bind != "auto":
            write = "Write an address of the host, 0.0.0.0 for all of them, or auto; the port goes into ollama_port."
            try:
                host = values.address(bind)
            except ValueError as error:
                self.refuse("ollama_bind", bind, str(error), write)
            else:
                if others and host.startswith(("127.", "[::1]")):
                    self.refuse(
                        "ollama_bind", bind,
                        f"where only the host itself reaches Ollama, and {' and '.join(others)} would let others in",
                        "Write ollama_bind: auto, or take the host out of the gateway's nodes."
                        if gateways
                        else "Write ollama_bind: auto, or ollama_containers: false and ollama_allow: [].",
                    )  # fmt: skip
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            why = "which is no port: Ollama would listen on 11434, and start all the same"
            self.refuse("ollama_port", port, why, "Write a number from 1 to 65535.")
        elif int(port) < 1024 and self.variables.get("ollama_install") != "container":
            why = "and below 1024 only root may listen, as which the service does not run"
            self.refuse("ollama_port", port, why, "Write a number from 1024 to 65535.")
        self.env["OLLAMA_HOST"] = f"{host}:{port}"

    def everywhere(self) -> str:
        """All addresses; the firewall decides who gets there. With [::] those of IPv4 are among them, where the host
        has IPv6 at all."""
        allow = self.variables.get("ollama_gateways") or self.variables.get("ollama_allow")
        six = any(":" in str(one) for one in (allow if isinstance(allow, (list, tuple)) else []))
        return "[::]" if six else "0.0.0.0"  # noqa: S104 - the firewall decides

    def no_proxy(self) -> None:
        own = self.variables.get("ollama_no_proxy") or ""
        listed = own if isinstance(own, (list, tuple)) else str(own).split(",")
        wanted = [name for name in (str(one).strip() for one in listed) if name]
        if any(re.search(r"\s|://", name) for name in wanted):
            write = "Write names, addresses and networks, separated by commas."
            self.refuse("ollama_no_proxy", own, values.CANNOT_READ, write)
        if wanted or self.env.get("HTTPS_PROXY"):
            registry = str(self.variables.get("ollama_registry") or "").rpartition("://")[2].split("/")[0]
            local = ["127.0.0.1", "localhost", "::1", re.sub(r":\d+$", "", registry)]
            self.env["NO_PROXY"] = ",".join(dict.fromkeys(name for name in [*local, *wanted] if name))

    def cache_type(self) -> None:
        name, value = "ollama_kv_cache_type", self.variables.get("ollama_kv_cache_type") or ""
        version = str(self.variables.get("ollama_version") or "")
        try:
            llama = compare(version, "0.30.0-rc0") >= 0
        except ValueError:  # the preflight refuses such a version in its own words
            llama = False
        words = _CACHE_TYPES_LLAMA if llama else _CACHE_TYPES
        try:
            self.env["OLLAMA_KV_CACHE_TYPE"] = values.one_of(*words)(value)
        except ValueError:
            why = "with which no model would load" if llama else f"which Ollama {version} would replace by f16"
            self.refuse(name, value, why, f"Write one of {', '.join(words)}.")
            return
        if value not in _FULL_CACHE and self.env.get("OLLAMA_FLASH_ATTENTION") == "0":
            why = "which needs flash attention, and ollama_flash_attention is off"
            self.refuse(name, value, why, "Set ollama_flash_attention: true, or leave it empty.")

    def devices(self) -> None:
        wanted = str(self.variables.get("ollama_gpu") or "auto")
        name, value = "ollama_visible_devices", self.variables.get("ollama_visible_devices")
        write = "Write numbers or identifiers as nvidia-smi -L or rocminfo show them, or ollama_gpu: cpu for none."
        try:
            devices = values.device_list("" if value is None else value)
        except ValueError as error:
            self.refuse(name, value, str(error), write)
            return
        if wanted == "cpu":
            if devices:
                self.refuse(name, value, "and ollama_gpu: cpu uses none", "Leave one of them out.")
            self.env.update(CUDA_VISIBLE_DEVICES="-1", ROCR_VISIBLE_DEVICES="-1", GGML_VK_VISIBLE_DEVICES="-1")
            return
        vendors = {wanted} if wanted != "auto" else {str(gpu.get("vendor")) for gpu in self.gpus}
        if not devices or not vendors:  # with no GPU there is nothing to choose from
            return
        if len(vendors) > 1:
            why = "and the host has GPUs of two vendors"
            self.refuse(name, value, why, "Say with ollama_gpu: nvidia or ollama_gpu: amd which are meant.")
            return
        (vendor,) = vendors
        there = sum(1 for gpu in self.gpus if gpu.get("vendor") == vendor)
        missing = [one for one in devices if there and one.isdigit() and int(one) >= there]
        if missing:
            why = f"and the host has {there} such GPU{'s' if there > 1 else ''}, the first of which is 0"
            self.refuse(name, value, f"{why}: none from {missing[0]} on would be used", write)
        self.env["CUDA_VISIBLE_DEVICES" if vendor == "nvidia" else "ROCR_VISIBLE_DEVICES"] = ",".join(devices)

    def extra(self) -> None:
        extra = self.variables.get("ollama_env") or {}
        if not isinstance(extra, Mapping):
            write = "Write names of environment variables with their values."
            self.refuse("ollama_env", type(extra).__name__, "which is no dictionary", write)
            return
        for key, value in extra.items():
            self.extra_one(str(key), value)

    def extra_one(self, key: str, value: Any) -> None:
        name = f"ollama_env[{key!r}]"
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            self.refusals.append(f"{name} is no name of an environment variable. Write letters, digits and _.")
        elif key.upper() in _RESERVED:
            self.refusals.append(f"ollama_env holds {key}; {_RESERVED[key.upper()]}.")
        elif self.env.get(key):
            variable = _BY_ENV[key].variable if key in _BY_ENV else "ollama_gpu"
            self.refusals.append(f"ollama_env holds {key}, which {variable} sets, too. Leave one of them out.")
        elif key in _BY_ENV:
            self.add(_BY_ENV[key], name, value)
        else:
            try:
                self.env[key] = (values.text if key.startswith("OLLAMA_") else values.line_of)(value)
            except ValueError as error:
                self.refuse(name, "***" if is_secret(key) else value, str(error), "Write one line.")
