# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Started by the plugin daemon as `python -m main`; speaks with it over standard input and output."""

from __future__ import annotations

from dify_plugin import DifyPluginEnv, Plugin

# As long as a cold model may need to be loaded.
plugin = Plugin(DifyPluginEnv(MAX_REQUEST_TIMEOUT=300))

if __name__ == "__main__":
    plugin.run()
