# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts Phoenix once while its image is built: Python compiles what that imports, and a failure ends the build."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request

SECONDS = 300

with tempfile.TemporaryDirectory() as folder:
    quiet = {**os.environ, "PHOENIX_WORKING_DIR": folder, "PHOENIX_TELEMETRY_ENABLED": "false"}
    server = subprocess.Popen(
        [sys.executable, "-m", "phoenix.server.main", "serve"], env=quiet, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            urllib.request.urlopen("http://127.0.0.1:6006/healthz", timeout=5).close()
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"Phoenix does not answer; its status is {server.poll()}")
            time.sleep(0.5)
    server.terminate()
    server.wait(timeout=60)
