"""Count the outcomes of every pytest run below this folder, so that `make test` can say the sum.

`tools/stages` names a folder in LLMOPS_TALLY; without it nothing is written.
"""

from __future__ import annotations

import json
import os
import pathlib

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    folder = os.environ.get("LLMOPS_TALLY")
    if not folder or hasattr(session.config, "workerinput"):  # an xdist worker: its controller counts
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not reporter:
        return
    counts = {name: len(reporter.stats.get(name, [])) for name in ("passed", "failed", "error", "skipped", "rerun")}
    pathlib.Path(folder, f"{os.getpid()}.json").write_text(json.dumps(counts))
