#!/bin/bash
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Dify's entry point in small: migrate if told so, then become the process that MODE asks for.
set -e

case "${STANDIN}" in
  api) ;;
  web | agent_backend | local_sandbox) exec python3 -m "standin.${STANDIN}" "$@" ;;
  # Plugins take a parent with the number 1 for one that has died, and end themselves.
  plugin_daemon) exec tini -- python3 -m standin.daemon "$@" ;;
  sandbox) exec python3 -m standin.sandbox "$@" ;;
  *) echo "unknown STANDIN: ${STANDIN}" >&2; exit 64 ;;
esac

if [[ "${MIGRATION_ENABLED}" == "true" ]]; then
  echo "Running migrations"
  flask upgrade-db
  if [[ "${MODE}" == "migration" ]] && python3 -m standin.versions has mode_migration; then
    echo "Migration completed, exiting normally"
    exit 0
  fi
fi

case "${MODE}" in
  worker) exec celery -A celery_entrypoint.celery worker ;;
  beat) exec celery -A app.celery beat ;;
  job) if python3 -m standin.versions has mode_job; then exec flask "$@"; fi ;;
esac
exec python3 -m standin.api.app
