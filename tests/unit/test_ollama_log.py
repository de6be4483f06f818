# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an Ollama server logs. The lines without a GPU are those of the real 0.17.4; the others have the form that its
source gives them."""

from __future__ import annotations

import json

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._ollama_log import (
    error_lines,
    parse_line,
    parse_log,
    parse_settings,
    parse_size,
)

TIME = "time=2026-11-25T18:44:02.570Z level=INFO"
CONFIG = (
    f'{TIME} source=routes.go:1663 msg="server config" env="map[CUDA_VISIBLE_DEVICES: GGML_VK_VISIBLE_DEVICES: '
    "HTTPS_PROXY:http://bob:s3cr%20et@proxy.example:3128 HTTP_PROXY: NO_PROXY:localhost,10.0.0.0/8 "
    "OLLAMA_CONTEXT_LENGTH:0 OLLAMA_DEBUG:INFO OLLAMA_HOST:http://127.0.0.1:11434 OLLAMA_KEEP_ALIVE:5m0s "
    "OLLAMA_MODELS:/usr/share/ollama/.ollama/models OLLAMA_ORIGINS:[http://a b https://localhost:* app://* "
    "vscode-file://*] OLLAMA_REMOTES:[ollama.com] OLLAMA_VULKAN:false ROCR_VISIBLE_DEVICES: http_proxy: "
    'https_proxy:eve:pw@proxy:1 no_proxy:]"'
)
CPU = (
    f'{TIME} source=types.go:60 msg="inference compute" id=cpu library=cpu compute="" name=cpu description=cpu '
    'libdirs=ollama driver="" pci_id="" type="" total="23.5 GiB" available="22.3 GiB"'
)
CUDA = (
    f'{TIME} source=types.go:42 msg="inference compute" id=GPU-0aa928c0 filter_id="" library=CUDA compute=12.0 '
    'name=CUDA0 description="NVIDIA GeForce RTX 5090" libdirs=ollama,cuda_v13 driver=13.0 pci_id=0000:01:00.0 '
    'type=discrete total="31.4 GiB" available="30.9 GiB"'
)
ROCM = CUDA.replace("library=CUDA compute=12.0 name=CUDA0", "library=ROCm compute=gfx1100 name=ROCm0")
OLD = (
    'time=2025-02-28T15:45:27.887Z level=INFO source=types.go:130 msg="inference compute" id=GPU-0aa928c0 library=cuda '
    'variant=v12 compute=12.0 driver=12.8 name="NVIDIA GeForce RTX 5090" total="31.4 GiB" available="30.9 GiB"'
)
START = [
    "Couldn't find '/usr/share/ollama/.ollama/id_ed25519'. Generating new private key.",
    CONFIG,
    "[GIN-debug] GET    /api/version              --> github.com/ollama/ollama/server.x (5 handlers)",
    " - using env:\texport GIN_MODE=release",
    f'{TIME} source=routes.go:1718 msg="Listening on 127.0.0.1:11434 (version 0.17.4)"',
    f'{TIME} source=runner.go:67 msg="discovering available GPUs..."',
    CPU,
    f'{TIME} source=routes.go:1768 msg="vram-based default context" total_vram="0 B" default_num_ctx=4096',
    '[GIN] 2026/11/25 - 18:44:07 | 200 |     106.128µs |       127.0.0.1 | GET      "/api/version"',
]


def test_a_start_on_the_cpu() -> None:
    log = parse_log(START)
    assert (log.listening, log.version, log.default_context, log.total_vram) == ("127.0.0.1:11434", "0.17.4", 4096, 0)
    assert [(one["library"], one["name"], one["total"]) for one in log.compute] == [("cpu", "cpu", int(23.5 * 2**30))]
    assert log.remarks == []


def test_a_start_of_0_13_5_names_no_context() -> None:
    line = f'{TIME} source=routes.go:1648 msg="entering low vram mode" "total vram"="0 B" threshold="20.0 GiB"'
    assert parse_line(line)["threshold"] == "20.0 GiB"
    assert parse_log([*START[:-2], line]).default_context == 0


def test_settings_hold_blanks_and_colons_and_no_login() -> None:
    settings = parse_log(START).settings
    assert settings["OLLAMA_ORIGINS"] == "[http://a b https://localhost:* app://* vscode-file://*]"
    assert settings["OLLAMA_HOST"] == "http://127.0.0.1:11434"
    assert settings["CUDA_VISIBLE_DEVICES"] == ""
    assert settings["NO_PROXY"] == "localhost,10.0.0.0/8"
    assert settings["HTTPS_PROXY"] == "http://***@proxy.example:3128"
    assert settings["https_proxy"] == "***@proxy:1"
    for secret in ("bob", "s3cr", "eve", "pw"):
        assert secret not in json.dumps(settings)
    assert len(settings) == 17


def test_settings_of_a_map_alone() -> None:
    assert parse_settings("map[]") == {}
    assert parse_settings("map[OLLAMA_A:1 LLAMA_ARG_FIT:on]") == {"OLLAMA_A": "1", "LLAMA_ARG_FIT": "on"}
    assert parse_settings("map[OLLAMA_API_KEY:abc]") == {"OLLAMA_API_KEY": "***"}


@pytest.mark.parametrize(("line", "library"), [(CUDA, "CUDA"), (ROCM, "ROCm"), (OLD, "cuda")])
def test_gpus(line: str, library: str) -> None:
    (device,) = parse_log([CONFIG, line]).compute
    assert (device["library"], device["name"]) == (library, "NVIDIA GeForce RTX 5090")
    assert device["id"] == "GPU-0aa928c0"
    assert device["total"] == int(31.4 * 2**30)


def test_only_the_last_start_counts() -> None:
    log = parse_log([CONFIG, CUDA, CONFIG, CPU])
    assert [one["library"] for one in log.compute] == ["cpu"]


def test_releases_before_0_7_write_the_settings_in_another_form() -> None:
    line = '2025/03/13 10:51:52 routes.go:1225: INFO server config env="map[OLLAMA_HOST:http://0.0.0.0:11434]"'
    assert parse_log([line]).settings == {"OLLAMA_HOST": "http://0.0.0.0:11434"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('msg="NVIDIA driver too old" device="Tesla P4" driver=535 required_driver="570 or newer"', "driver_too_old"),
        ('msg="dropping ROCm device — no rocblas support for gfx target" gfx_target=gfx906', "dropped_rocm"),
        ('msg="dropping integrated GPU; to enable, set OLLAMA_IGPU_ENABLE=1" id=0', "dropped_igpu"),
        ('msg="user overrode visible devices" CUDA_VISIBLE_DEVICES=-1', "visible_devices"),
        ('msg="llama-server GPU discovery watchdog timed out" error=x', "timeout"),
        ('msg="failure during GPU discovery" error="failed to finish discovery"', "discovery"),
        ('msg="skipping CUDA device — compute capability not in compiled architectures" x=1', "capability"),
    ],
)
def test_remarks_about_gpus(text: str, kind: str) -> None:
    line = f"time=2026-11-25T18:44:02.570Z level=WARN source=x.go:1 {text}"
    (remark,) = parse_log([CONFIG, line, line]).remarks
    assert remark["kind"] == kind
    assert remark["detail"].startswith(text.split('"')[1])


def test_lines_of_other_kinds_are_none() -> None:
    assert parse_line("Error: mkdir /x: permission denied") == {}
    assert parse_line("") == {}
    assert parse_line(r'time=1 level=INFO msg="a \"quoted\" one" path="C:\\x\a"')["msg"] == 'a "quoted" one'


@pytest.mark.parametrize(("text", "size"), [("0 B", 0), ("512.0 MiB", 2**29), ("1.5 GiB", 3 * 2**29), ("?", 0)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


class TestErrors:
    def test_why_it_ended(self) -> None:
        said = [*START, "Error: mkdir /root/x: permission denied: ensure path elements are traversable"]
        assert error_lines(said) == ["Error: mkdir /root/x: permission denied: ensure path elements are traversable"]

    def test_an_error_of_the_log_is_its_message(self) -> None:
        line = 'time=2026-11-25T18:44:02Z level=ERROR source=server.go:304 msg="llama runner terminated" error="exit 2"'
        assert error_lines([line]) == ["llama runner terminated: exit 2"]

    def test_routine_is_no_error(self) -> None:
        assert error_lines([*START, "Started ollama.service - Ollama."]) == []
        assert error_lines([*START, "Started ollama.service - Ollama."], any_line=True) == []
        assert error_lines([*START, "it just says so"], any_line=True) == ["it just says so"]

    def test_the_reason_is_that_of_the_last_run(self) -> None:
        end = [
            "ollama.service: Main process exited, code=exited, status=1/FAILURE",
            "ollama.service: Failed with result 'exit-code'.",
            "ollama.service: Scheduled restart job, restart counter is at 1.",
        ]
        started = "Started ollama.service - Ollama."
        said = [started, "Error: long ago", *end, started, "the models are of another kind", *end, started]
        assert error_lines(said, any_line=True) == ["the models are of another kind"]
        assert error_lines(said) == ["Error: long ago"]

    def test_each_is_said_once_and_the_last_are_kept(self) -> None:
        said = [f"Error: {number % 4}" for number in range(12)]
        assert error_lines(said, 3) == ["Error: 1", "Error: 2", "Error: 3"]

    def test_systemd_speaks_too(self) -> None:
        line = "ollama.service: Failed at step EXEC spawning /usr/local/bin/ollama: No such file or directory"
        assert error_lines([line, "ollama.service: Scheduled restart job, restart counter is at 2."]) == [line]

    def test_no_login(self) -> None:
        assert error_lines(["Error: proxyconnect http://bob:pw@proxy:1: refused"]) == [
            "Error: proxyconnect http://***@proxy:1: refused"
        ]
