# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decisions about traces of model calls, for use in roles and playbooks: no module execution, no connection."""

from __future__ import annotations

import importlib.util
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, Callable

from ansible_collections.llmops.stack.plugins.module_utils import _traceloop_plan

_RUNTIME = pathlib.Path(__file__).resolve().parents[2] / "roles/traceloop/files/monitoring/llmops_monitoring"


def _manifest_rules() -> Any:
    """Those of the runtime itself, so that what is refused there is refused here, before anything is changed."""
    spec = importlib.util.spec_from_file_location("llmops_monitoring_manifest", _RUNTIME / "manifest.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{_RUNTIME} is missing: this installation of the collection is not complete.")
    rules = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rules)
    return rules


def read_manifest(files: Mapping[str, str]) -> dict[str, Any]:
    rules = _manifest_rules()
    with tempfile.TemporaryDirectory(prefix="llmops-") as name:
        folder = pathlib.Path(name)
        for path, text in files.items():
            if "/" not in path:  # plugin.json, and the file that it names
                (folder / path).write_text(text, encoding="utf-8")
        try:
            found: dict[str, Any] = rules.read(folder)
        except rules.Refused as exc:
            raise ValueError(str(exc)) from exc
    return found


def plan(
    variables: Mapping[str, Any], facts: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return _traceloop_plan.plan(variables, facts or {}, asked or {}, read_manifest)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"traceloop_plan": plan}
