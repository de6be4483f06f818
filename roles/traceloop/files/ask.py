# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run in the image of a Dify release: the runtime, which comes in as JSON, looks for its functions there."""

import json
import pathlib
import runpy
import sys
import tempfile

with tempfile.TemporaryDirectory() as folder:
    for name, text in json.load(sys.stdin).items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    sys.path.insert(0, folder)
    sys.argv = ["llmops_monitoring", "/app/api"]
    runpy.run_module("llmops_monitoring", run_name="__main__", alter_sys=True)
