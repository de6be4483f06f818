# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of models, against what the real server takes and refuses."""

from __future__ import annotations

import pytest
from ansible_collections.llmops.stack.plugins.module_utils._ollama_names import BadName, parse


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
        ("llama3:8b", "registry.ollama.ai/library/llama3:8b", "llama3:8b"),
        ("library/llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
        ("registry.ollama.ai/library/llama3:latest", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
        ("me/x", "registry.ollama.ai/me/x:latest", "me/x:latest"),
        ("hf.co/u/r.v2:Q4_K_M", "hf.co/u/r.v2:Q4_K_M", "hf.co/u/r.v2:Q4_K_M"),
        ("localhost:5000/library/x", "localhost:5000/library/x:latest", "localhost:5000/library/x:latest"),
        ("http://localhost:5000/library/x:1", "localhost:5000/library/x:1", "localhost:5000/library/x:1"),
        (" deepseek-r1:1.5b ", "registry.ollama.ai/library/deepseek-r1:1.5b", "deepseek-r1:1.5b"),
    ],
)
def test_defaults_and_what_is_shown(text: str, full: str, short: str) -> None:
    assert (parse(text).full, parse(text).short) == (full, short)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be its model"),
        ("x:", "cannot be its tag"),
        ("localhost:5000/x", "needs host, namespace and model"),
        ("ns.x/m", "cannot be its namespace"),
        ("a/b/c/d", "more parts"),
        ("x@sha256:" + "0" * 64, "cannot pin a digest"),
        ("-x", "cannot be its model"),
        ("a b", "cannot be its model"),
        ("x" * 81, "cannot be its model"),
        ("../../etc/passwd", "more parts"),
        ("../x/y", "cannot be its host"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(BadName, match=said):
        parse(text)


def test_case_and_the_default_tag_make_no_difference() -> None:
    assert len({parse(one).key for one in ("x", "X:latest", "Library/x", "REGISTRY.ollama.ai/library/x:LATEST")}) == 1
    assert parse("x:1").key != parse("x:2").key


@pytest.mark.parametrize(
    ("text", "cloud"), [("gpt-oss:120b-cloud", True), ("x:Cloud", True), ("me/x-cloud", False), ("cloud:7b", False)]
)
def test_models_without_weights(text: str, cloud: bool) -> None:
    assert parse(text).is_cloud is cloud
