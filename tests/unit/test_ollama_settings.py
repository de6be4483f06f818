# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: what is written is what Ollama reads, and what it would replace in silence is refused."""

from __future__ import annotations

import re
import shlex
import string
from decimal import Decimal
from typing import Any

import pytest
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_systemd as systemd
from ansible_collections.llmops.stack.plugins.module_utils import _ollama_values as values
from ansible_collections.llmops.stack.plugins.module_utils._ollama_settings import _TABLE, settings
from hypothesis import example, given
from hypothesis import strategies as st

NVIDIA = {"vendor": "nvidia"}
AMD = {"vendor": "amd"}


def env(gpus: Any = (), **variables: Any) -> dict[str, str]:
    made = settings(variables, gpus)
    assert made["refusals"] == []
    return made["env"]


def refused(gpus: Any = (), **variables: Any) -> str:
    (sentence,) = settings(variables, gpus)["refusals"]
    return sentence


# -- Go, said again in other words ---------------------------------------------

UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 6 * 10**10, "h": 36 * 10**11}


def go_parse_int(text: str) -> bool:
    return bool(re.match(r"\A[+-]?[0-9]+\Z", text)) and -(2**63) <= int(text) < 2**63


def go_parse_uint(text: str) -> bool:
    return bool(re.match(r"\A[0-9]+\Z", text)) and int(text) < 2**64


def go_parse_duration(text: str) -> bool:
    """Walks through the text as the documentation of time.ParseDuration describes it."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return True
    total, digits = Decimal(0), "0123456789"
    while rest:
        number = ""
        while rest and rest[0] in digits + ".":
            if rest[0] == "." and "." in number:
                break
            number, rest = number + rest[0], rest[1:]
        unit = ""
        while rest and rest[0] not in digits + ".":
            unit, rest = unit + rest[0], rest[1:]
        if not number.strip(".") or unit not in UNITS:
            return False
        total += Decimal(number) * UNITS[unit]
    return bool(text.strip("+-")) and total < 2**63


def accepted(read: Any, value: Any) -> str | None:
    try:
        return read(value)
    except ValueError:
        return None


ODD = st.text(alphabet="0123456789.+-_ eEx٣smhnuµμd,\n\"'", max_size=12) | st.text(max_size=8)
DURATIONS = st.lists(
    st.tuples(st.decimals(0, 10**6, places=2).map(str), st.sampled_from([*UNITS, "d", "M", ""])), min_size=1, max_size=3
).map(lambda parts: "".join(number + unit for number, unit in parts))


@given(ODD | DURATIONS | st.integers().map(str) | st.integers() | st.floats() | st.booleans())
@example("5m")
@example("1h30m")
@example("-1")
@example(".5h")
@example("5.")
@example("1:30")
@example("9223372037")
@example("2562048h")
def test_a_duration_that_go_cannot_read_is_refused(value: Any) -> None:
    text = accepted(values.duration, value)
    if text:
        assert go_parse_duration(text) or (go_parse_int(text) and abs(int(text)) * 10**9 < 2**63)
        assert text == str(value)


@given(DURATIONS)
def test_every_duration_that_go_reads_is_taken(text: str) -> None:
    assert (accepted(values.duration, text) == text) == go_parse_duration(text)


@given(ODD | st.integers() | st.floats() | st.booleans())
@example("+5")
@example("1_000")
@example("٣")
@example("4k")
@example(True)
def test_a_number_that_go_cannot_read_is_refused(value: Any) -> None:
    for setting in _TABLE:
        if setting.env in ("OLLAMA_NUM_PARALLEL", "OLLAMA_GPU_OVERHEAD", "OLLAMA_MAX_TRANSFER_STREAMS"):
            text = accepted(setting.read, value)
            if text:
                assert go_parse_uint(text) and int(text) == int(value) and not isinstance(value, bool)


@given(ODD | st.sampled_from(["true", "TRUE", "yes", "off", "on", "no", "auto", "f", "2"]) | st.booleans())
def test_a_word_that_go_takes_for_true_is_refused(value: Any) -> None:
    text = accepted(values.boolean, value)
    assert text in (None, "", "0", "1")
    if text:
        assert value in (True, False) or value in values._TRUE + values._FALSE


@given(st.dictionaries(st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,8}\Z"), st.text(string.printable)))
def test_what_is_written_is_what_arrives(wanted: dict[str, str]) -> None:
    """Line by line as systemd reads it: words, then specifiers."""
    kept = {key: value for key, value in wanted.items() if accepted(values.line_of, value)}
    lines = systemd.environment_lines(kept)
    assert lines == sorted(lines, key=lambda line: line.split("=", 2)[1])
    read = {}
    for line in lines:
        assert "\n" not in line and not re.search(r"(?<!%)(?:%%)*%(?!%)", line)
        (word,) = shlex.split(line.partition("=")[2])
        key, _separator, value = word.replace("%%", "%").partition("=")
        read[key] = value
    assert read == kept
    assert systemd.parse_environment(["[Service]\n" + "\n".join(lines) + "\n"]) == kept


# -- bind and port -------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({}, "127.0.0.1:11434"),
        ({"ollama_containers": True}, "0.0.0.0:11434"),
        ({"ollama_allow": ["10.0.0.7"]}, "0.0.0.0:11434"),
        ({"ollama_bind": "auto", "ollama_port": "8080"}, "127.0.0.1:8080"),
        ({"ollama_bind": "::", "ollama_containers": True}, "[::]:11434"),
        ({"ollama_allow": ["10.0.0.7", "fd00::/64"]}, "[::]:11434"),
        ({"ollama_allow": ["fd00::/64"], "ollama_bind": "0.0.0.0"}, "0.0.0.0:11434"),
        ({"ollama_bind": "10.0.0.7", "ollama_port": 1024, "ollama_containers": True}, "10.0.0.7:1024"),
        ({"ollama_port": 80, "ollama_install": "container"}, "127.0.0.1:80"),
        ({"ollama_bind": "localhost"}, "127.0.0.1:11434"),
    ],
)
def test_where_it_listens(variables: dict[str, Any], host: str) -> None:
    assert env(**variables)["OLLAMA_HOST"] == host


@pytest.mark.parametrize(
    "bind", ["http://0.0.0.0", "0.0.0.0:11434", "[::]", "node1", "*", "fe80::1%eth0", "10.0.0.0/8"]
)
def test_a_bind_that_is_no_address(bind: str) -> None:
    sentence = refused(ollama_bind=bind)
    assert bind in sentence and "the port goes into ollama_port" in sentence
    assert ("port 80" in sentence) == bind.startswith("http")


@pytest.mark.parametrize("port", [0, 65536, "http", "", "11434 ", True, 1.5])
def test_a_port_that_ollama_would_replace(port: Any) -> None:
    assert "11434, and start all the same" in refused(ollama_port=port)


def test_a_port_for_which_one_has_to_be_root() -> None:
    assert "only root may listen" in refused(ollama_port=443)
    assert "only root may listen" in refused(ollama_port=1023, ollama_install="native")


def test_loopback_lets_nobody_in() -> None:
    sentence = refused(ollama_bind="127.0.0.1", ollama_containers=True, ollama_allow=["10.0.0.7"])
    assert "ollama_containers and ollama_allow" in sentence


# -- values --------------------------------------------------------------------


def test_nothing_is_set_where_nothing_is_asked_for() -> None:
    unset = {setting.variable: "" for setting in _TABLE if setting.variable}
    zero = dict.fromkeys(("ollama_num_parallel", "ollama_max_queue", "ollama_gpu_overhead", "ollama_debug"), 0)
    off = dict.fromkeys(("ollama_noprune", "ollama_sched_spread", "ollama_no_cloud"), False)
    empty: dict[str, Any] = {
        "ollama_origins": [],
        "ollama_env": {},
        "ollama_visible_devices": "",
        "ollama_no_proxy": "",
    }
    assert list(env(**{**unset, **zero, **off, **empty})) == ["OLLAMA_HOST"]


@pytest.mark.parametrize(
    ("variable", "value", "name", "expected"),
    [
        ("ollama_keep_alive", "1h30m", "OLLAMA_KEEP_ALIVE", "1h30m"),
        ("ollama_keep_alive", 0, "OLLAMA_KEEP_ALIVE", "0"),  # unload at once, which is not the same as not set
        ("ollama_keep_alive", -1, "OLLAMA_KEEP_ALIVE", "-1"),
        ("ollama_load_timeout", "600", "OLLAMA_LOAD_TIMEOUT", "600"),
        ("ollama_num_parallel", "4", "OLLAMA_NUM_PARALLEL", "4"),
        ("ollama_context_length", 8192, "OLLAMA_CONTEXT_LENGTH", "8192"),
        ("ollama_flash_attention", False, "OLLAMA_FLASH_ATTENTION", "0"),
        ("ollama_flash_attention", "true", "OLLAMA_FLASH_ATTENTION", "1"),
        ("ollama_no_cloud", True, "OLLAMA_NO_CLOUD", "1"),
        ("ollama_debug", True, "OLLAMA_DEBUG", "1"),
        ("ollama_debug", 2, "OLLAMA_DEBUG", "2"),
        ("ollama_kv_cache_type", "q8_0", "OLLAMA_KV_CACHE_TYPE", "q8_0"),
        ("ollama_models_dir", "/srv/models/", "OLLAMA_MODELS", "/srv/models"),
        ("ollama_llm_library", "cuda_v12", "OLLAMA_LLM_LIBRARY", "cuda_v12"),
        ("ollama_origins", ["https://a.example.com", "http://*.local"], "OLLAMA_ORIGINS",
         "https://a.example.com,http://*.local"),
        ("ollama_origins", "*", "OLLAMA_ORIGINS", "*"),
        ("ollama_https_proxy", "http://me:pa55@proxy:3128", "HTTPS_PROXY", "http://me:pa55@proxy:3128"),
    ],
)  # fmt: skip
def test_values(variable: str, value: Any, name: str, expected: str) -> None:
    assert env(**{variable: value})[name] == expected


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ollama_keep_alive", "5 minutes", "keep models for 5m, and start all the same"),
        ("ollama_keep_alive", True, "no duration"),
        ("ollama_load_timeout", "1d", "wait for 5m"),
        ("ollama_max_queue", -1, "queue 512 requests"),
        ("ollama_context_length", "8k", "number of tokens"),
        ("ollama_gpu_overhead", "2GiB", "without a unit"),
        ("ollama_flash_attention", "auto", "take for true"),
        ("ollama_sched_spread", "off", "take for true"),
        ("ollama_debug", "debug", "level"),
        ("ollama_debug", 3, "level"),
        ("ollama_models_dir", "models", "absolute path"),
        ("ollama_models_dir", "/srv/../models", "absolute path"),
        ("ollama_models_dir", "/srv/models ", "cut off"),
        ("ollama_llm_library", "'cuda'", "cut off"),
        ("ollama_origins", ["a.example.com"], "would not start"),
        ("ollama_origins", ["http://*.a.*"], "would not start"),
        ("ollama_origins", ["https://a.example.com/"], "match no page"),
        ("ollama_https_proxy", "proxy:3128", "without one"),
        ("ollama_https_proxy", "http://proxy:port", "without a proxy"),
        ("ollama_no_proxy", "http://a", "cannot read"),
        ("ollama_env", ["A=1"], "no dictionary"),
    ],
)
def test_values_that_are_refused(variable: str, value: Any, words: str) -> None:
    sentence = refused(**{variable: value})
    assert sentence.startswith(variable) and words in sentence


def test_a_container_has_its_store_where_the_image_has_it() -> None:
    assert "OLLAMA_MODELS" not in env(ollama_install="container", ollama_models_dir="/srv/models")


def test_cache_types_grew_with_llama_server() -> None:
    assert env(ollama_kv_cache_type="q5_1", ollama_version="0.30.0")["OLLAMA_KV_CACHE_TYPE"] == "q5_1"
    assert "replace by f16" in refused(ollama_kv_cache_type="q5_1", ollama_version="0.17.4")
    assert "no model would load" in refused(ollama_kv_cache_type="q9", ollama_version="0.32.15")
    assert "flash attention" in refused(ollama_kv_cache_type="q8_0", ollama_flash_attention=False)


def test_local_addresses_stay_out_of_the_proxy() -> None:
    made = env(ollama_https_proxy="http://p:1", ollama_no_proxy="corp.example.com", ollama_registry="mirror:5000")
    assert made["NO_PROXY"] == "127.0.0.1,localhost,::1,mirror,corp.example.com"
    assert env(ollama_no_proxy=["a", "localhost"])["NO_PROXY"] == "127.0.0.1,localhost,::1,a"


# -- GPUs ----------------------------------------------------------------------


def test_the_cpu_alone() -> None:
    made = env([NVIDIA], ollama_gpu="cpu")
    assert (made["CUDA_VISIBLE_DEVICES"], made["ROCR_VISIBLE_DEVICES"], made["GGML_VK_VISIBLE_DEVICES"]) == ("-1",) * 3
    assert "uses none" in refused(ollama_gpu="cpu", ollama_visible_devices="0")


@pytest.mark.parametrize(
    ("gpu", "gpus", "name"),
    [
        ("auto", [NVIDIA, NVIDIA], "CUDA_VISIBLE_DEVICES"),
        ("auto", [AMD, AMD], "ROCR_VISIBLE_DEVICES"),
        ("amd", [NVIDIA, AMD, AMD], "ROCR_VISIBLE_DEVICES"),
        ("nvidia", [], "CUDA_VISIBLE_DEVICES"),
        ("auto", [], ""),
    ],
)
def test_devices_by_vendor(gpu: str, gpus: list[Any], name: str) -> None:
    made = env(gpus, ollama_gpu=gpu, ollama_visible_devices="0,1")
    assert [key for key in made if "VISIBLE" in key] == ([name] if name else [])


@pytest.mark.parametrize("value", ["-1", "all", "0,,1", "0;1", "0,0", "GPU-"])
def test_devices_that_no_runtime_knows(value: str) -> None:
    assert refused([NVIDIA, NVIDIA], ollama_visible_devices=value).startswith("ollama_visible_devices")


def test_more_devices_than_there_are() -> None:
    assert "none from 1 on" in refused([NVIDIA], ollama_visible_devices="0,1")
    assert "two vendors" in refused([NVIDIA, AMD], ollama_visible_devices=0)
    assert env([NVIDIA], ollama_visible_devices=["GPU-8f6c1a"])["CUDA_VISIBLE_DEVICES"] == "GPU-8f6c1a"


# -- ollama_env ----------------------------------------------------------------


def test_other_variables_pass() -> None:
    made = env(ollama_env={"GODEBUG": "x=1", "OLLAMA_VULKAN": False, "HSA_OVERRIDE_GFX_VERSION": "10.3.0", "N": 3})
    assert (made["GODEBUG"], made["OLLAMA_VULKAN"], made["HSA_OVERRIDE_GFX_VERSION"], made["N"]) == (
        "x=1",
        "0",
        "10.3.0",
        "3",
    )
    assert env(ollama_env={"OTHER": ' %h "q" '})["OTHER"] == ' %h "q" '
    assert env(ollama_env={"OLLAMA_KEEP_ALIVE": "1h"}, ollama_keep_alive="")["OLLAMA_KEEP_ALIVE"] == "1h"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("OLLAMA_HOST", "0.0.0.0", "ollama_bind and ollama_port"),
        ("OLLAMA_MODELS", "/srv", "ollama_models_dir"),
        ("HTTP_PROXY", "http://p:1", "ollama_https_proxy"),
        ("http_proxy", "http://p:1", "ollama_https_proxy"),
        ("no_proxy", "a", "ollama_no_proxy"),
        ("OLLAMA_API_KEY", "x", "knows no login"),
        ("OLLAMA_REGISTRY", "x", "no such setting"),
        ("OLLAMA_KEEP_ALIVE", "5 minutes", "keep models for 5m"),
        ("OLLAMA_VULKAN", "off", "take for true"),
        ("HSA_OVERRIDE_GFX_VERSION", "gfx1030", "x.y.z"),
        ("A-B", "1", "no name of an environment variable"),
        ("A\nB", "1", "no name of an environment variable"),
        ("MOTD", "a\nb", "line break"),
        ("MOTD", ["a"], "not one value"),
    ],
)
def test_other_variables_that_are_refused(key: str, value: Any, words: str) -> None:
    sentence = refused(ollama_env={key: value})
    assert "ollama_env" in sentence and words in sentence


def test_one_setting_in_two_places() -> None:
    assert "ollama_num_parallel sets, too" in refused(ollama_num_parallel=2, ollama_env={"OLLAMA_NUM_PARALLEL": "4"})


# -- secrets -------------------------------------------------------------------


def test_no_secret_in_what_is_shown_or_said() -> None:
    made = settings(
        {
            "ollama_https_proxy": "http://me:pa55@proxy:3128",
            "ollama_env": {"HF_TOKEN": "t0ken", "OTHER_PASSWORD": "pa\n55", "URL": "http://me:pa55@x\ny"},
        }
    )
    assert made["env"]["HTTPS_PROXY"] == "http://me:pa55@proxy:3128" and made["env"]["HF_TOKEN"] == "t0ken"
    assert made["shown"]["HTTPS_PROXY"] == "http://***@proxy:3128" and made["shown"]["HF_TOKEN"] == "***"
    assert len(made["refusals"]) == 2
    said = " ".join(made["refusals"])
    assert "pa55" not in said and "55" not in said.replace("***", "")
    assert "pa55" not in refused(ollama_https_proxy="http://me:pa55@proxy:port")
