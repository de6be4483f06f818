#!/bin/sh
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Stands where a release mounts an entry script of a service that the world has no image for.
echo "This archive was packed for tests; it has no entry script for this service." >&2
exit 64
