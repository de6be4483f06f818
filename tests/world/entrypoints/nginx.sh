#!/bin/sh
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The entry script that a release mounts into nginx: renders its templates from the environment and starts nginx.
set -eu

# Only names that are set are replaced, or nginx's own $host and its like would vanish.
render() { envsubst "$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/${\1}/p')" <"$1"; }

HTTPS_CONFIG=
if [ "${NGINX_HTTPS_ENABLED:-false}" = true ]; then
    folder=/etc/ssl
    certificate=${NGINX_SSL_CERT_FILENAME:-dify.crt}
    key=${NGINX_SSL_CERT_KEY_FILENAME:-dify.key}
    live=/etc/letsencrypt/live/${CERTBOT_DOMAIN:-}
    if [ -n "${CERTBOT_DOMAIN:-}" ] && [ -f "$live/$certificate" ] && [ -f "$live/$key" ]; then
        folder=$live
    fi
    export SSL_CERTIFICATE_PATH="$folder/$certificate" SSL_CERTIFICATE_KEY_PATH="$folder/$key"
    HTTPS_CONFIG=$(render /etc/nginx/https.conf.template)
fi

ACME_CHALLENGE_LOCATION=
if [ "${NGINX_ENABLE_CERTBOT_CHALLENGE:-false}" = true ]; then
    ACME_CHALLENGE_LOCATION='location /.well-known/acme-challenge/ { root /var/www/html; }'
fi
export HTTPS_CONFIG ACME_CHALLENGE_LOCATION

render /etc/nginx/nginx.conf.template >/etc/nginx/nginx.conf
render /etc/nginx/proxy.conf.template >/etc/nginx/proxy.conf
render /etc/nginx/conf.d/default.conf.template >/etc/nginx/conf.d/default.conf

exec nginx -g 'daemon off;'
