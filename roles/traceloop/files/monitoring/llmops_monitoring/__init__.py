# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runtime of the monitoring plugins: it shows every model call of Dify to them, and never lets them disturb one.

Environment: LLMOPS_MONITORING (false switches it off), LLMOPS_MONITORING_PLUGINS (folders of plugin folders, separated
as in PATH; default: `plugins` beside this package). `python -m llmops_monitoring [folder of Dify's api]` checks without
running Dify; `llmops_monitoring.counters.counters()` says what happened in a process.

Nothing is imported here: this package is found in every Python process of the container, most of which call no model.
"""
