#!/bin/sh
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The entry script that a release mounts into certbot: writes the renewal script from its template, then runs the command.
set -eu
sed \
    -e "s|\${CERTBOT_DOMAIN}|${CERTBOT_DOMAIN:-}|g" \
    -e "s|\${CERTBOT_EMAIL}|${CERTBOT_EMAIL:-}|g" \
    -e "s|\${CERTBOT_OPTIONS}|${CERTBOT_OPTIONS:-}|g" \
    /update-cert.template.txt >/update-cert.sh
chmod +x /update-cert.sh
exec "$@"
