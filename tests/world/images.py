# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of the world's service images: which context serves which names of Docker Hub.

What a release needs is read from its own compose file, so a new folder in DIFY_RELEASES_DIR needs no edit here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from _images import GoBinary, Image, WheelProgram
from _releases import origin, renumbered, siblings
from _settings import RELEASES, WorldError

# Programs that Debian packages; their stock tags are the same in every release.
PACKAGED = {
    "postgres": "library/postgres:15-alpine",
    "redis": "library/redis:6-alpine",
    "nginx": "library/nginx:latest",
    "squid": "ubuntu/squid:latest",
    "busybox": "library/busybox:latest",
}
WEAVIATE = "semitechnologies/weaviate"
# Repository -> the program of the stand-in context.
STAND_INS = {
    "langgenius/dify-api": "api",
    "langgenius/dify-web": "web",
    "langgenius/dify-plugin-daemon": "plugin_daemon",
    "langgenius/dify-sandbox": "sandbox",
    "langgenius/dify-agent-backend": "agent_backend",
    "langgenius/dify-agent-local-sandbox": "local_sandbox",
}
# What the plugin daemon builds its plugins' environments with.
UV = WheelProgram(
    "uv",
    "0.13.9",
    {
        "x86_64": "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
        "aarch64": "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    },
)
# Debian's has no OTLP receiver. Finding targets in clouds is left out: it is most of what there is to compile.
_PROMETHEUS_MODULE = "github.com/prometheus/prometheus"
PROMETHEUS, PROMTOOL = (
    GoBinary(
        name,
        f"{_PROMETHEUS_MODULE}/cmd/{name}",
        "0.313.5",  # the module's way to say 3.13.5
        ldflags="-s -w -X github.com/prometheus/common/version.Version=3.13.5",
        via="get",
        tags="netgo,remove_all_sd",
    )
    for name in ("prometheus", "promtool")
)
# Where traces and metrics go. Whatever Dify release is asked for, its host may be told to use one of these.
COLLECTOR = GoBinary(
    "otelcol-contrib",
    "go.opentelemetry.io/collector/cmd/builder",
    "0.155.0",
    via="builder",
    manifest="otelcol/manifest.yaml",
)
PHOENIX = Image(
    "phoenix",
    "phoenix",
    ("arizephoenix/phoenix:version-20.26.1",),
    base="base-trixie",
    binaries=(UV,),
    wheels="wheels/requirements.lock",
)
MONITORING = (
    Image("otelcol", "otelcol", ("otel/opentelemetry-collector-contrib:0.155.0",), binaries=(COLLECTOR,)),
    Image("lgtm", "lgtm", ("grafana/otel-lgtm:0.30.2",), base="base-trixie", binaries=(COLLECTOR, PROMETHEUS)),
    PHOENIX,
)
# A browser, for the tests that look at a page; no registry has it.
CHROMIUM = Image("chromium", "chromium", base="base-trixie")
# The api image stopped running as root here; 1001 is also the owner that its storage needs.
API_AS_1001 = (1, 10, 1)
# OpenTelemetry as the api image has it, and since when; the images before have no OTLP over HTTP.
OPENTELEMETRY = (((1, 14, 1), "1.41.1"), ((1, 13, 0), "1.40.0"), ((1, 3, 0), "1.27.0"))

_IMAGE_LINE = re.compile(r"^\s+image:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)


def version_key(version: str) -> tuple[int, ...]:
    """'1.10.1' and '1.10.1-rc1' -> (1, 10, 1)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("-")[0]))


def known_tags(releases: Path = RELEASES) -> list[str]:
    """The Dify tags that release data is there for, oldest first."""
    compose_files = releases.glob("*/docker/docker-compose.yaml")
    return sorted((path.parents[1].name for path in compose_files), key=version_key)


def table(tags: Collection[str] | None = None, releases: Path = RELEASES) -> tuple[Image, ...]:
    """Every image that these Dify tags (all known ones by default) name in their stock setup."""
    known = known_tags(releases)
    made = siblings(releases)
    unknown = sorted(set(tags or ()) - {*known, *made})
    if unknown or not known:
        raise WorldError(
            f"No release data in {releases} for {', '.join(unknown) or 'any Dify tag'} "
            f"(there is: {', '.join(known) or 'none'}). "
            "Set DIFY_RELEASES_DIR to a folder that holds <tag>/docker/docker-compose.yaml, or to nothing: where no "
            "../shared/dify-releases is either, tools/fetch-releases fetches the tags that are needed."
        )
    wanted = known if tags is None else [tag for tag in sorted([*known, *made], key=version_key) if tag in tags]
    return (*_packaged(), *_from_compose(releases, wanted))


def _packaged() -> Iterator[Image]:
    for context, tag in PACKAGED.items():
        yield Image(name=context, context=context, tags=(tag,))


def _from_compose(releases: Path, tags: list[str]) -> Iterator[Image]:
    named: dict[str, None] = {}  # a set that keeps the order
    for tag in tags:
        other = origin(tag, releases)
        text = (releases / other / "docker" / "docker-compose.yaml").read_text(encoding="utf-8")
        named.update(dict.fromkeys(_IMAGE_LINE.findall(renumbered(text, tag, other))))
    for reference in named:
        repository, _, version = reference.partition(":")
        if repository == WEAVIATE:
            yield _weaviate(reference, version)
        elif repository in STAND_INS:
            yield _stand_in(reference, STAND_INS[repository], version)


def _weaviate(reference: str, version: str) -> Image:
    return Image(
        name=f"weaviate-{version}",
        context="weaviate",
        tags=(reference,),
        binaries=(GoBinary("weaviate-server", "github.com/weaviate/weaviate/cmd/weaviate-server", version),),
    )


def _stand_in(reference: str, program: str, tag: str) -> Image:
    args = {"STANDIN": program, "STANDIN_VERSION": tag.removesuffix("-local")}
    if program == "api" and version_key(tag) >= API_AS_1001:
        args["RUN_AS"] = "1001:1001"
    name = reference.split("/")[1].replace(":", "-")
    if program == "plugin_daemon":
        # Plugins want a newer Python than the other images have.
        return Image(name, "standin", (reference,), args, base="base-trixie", binaries=(UV,))
    telemetry = [release for since, release in OPENTELEMETRY if program == "api" and version_key(tag) >= since]
    wheels = f"wheels/opentelemetry-{telemetry[0]}.lock" if telemetry else ""
    return Image(name, "standin", (reference,), args, wheels=wheels)
