#!/bin/sh
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The entry script that a release mounts into squid: renders the template from the environment and stays in the foreground.
set -eu

# From 1.15 on the template includes two files that the entry script has to write: who may use the proxy on the sandbox's
# behalf, and which private addresses and domains are let through all the same (comma separated, empty for none).
: >/etc/squid/dify_sandbox_proxy.conf
if [ -n "${SANDBOX_HOST:-}" ] && [ -n "${REVERSE_PROXY_PORT:-}" ]; then
    cat >/etc/squid/dify_sandbox_proxy.conf <<PROXY
http_port ${REVERSE_PROXY_PORT} accel vhost
cache_peer ${SANDBOX_HOST} parent ${SANDBOX_PORT:-8194} 0 no-query originserver
PROXY
fi

: >/etc/squid/dify_allow_private.conf
allow() { # name, kind of acl, values
    [ -n "$3" ] || return 0
    printf 'acl %s %s %s\nhttp_access allow %s\n' "$1" "$2" "$(printf %s "$3" | tr ',' ' ')" "$1" \
        >>/etc/squid/dify_allow_private.conf
}
allow dify_private_addresses dst "${SSRF_PROXY_ALLOW_PRIVATE_IPS:-}"
allow dify_private_domains dstdomain "${SSRF_PROXY_ALLOW_PRIVATE_DOMAINS:-}"

script='{
    line = $0
    while (match(line, /\$\{[A-Za-z_][A-Za-z0-9_]*\}/)) {
        name = substr(line, RSTART + 2, RLENGTH - 3)
        line = substr(line, 1, RSTART - 1) ENVIRON[name] substr(line, RSTART + RLENGTH)
    }
    print line
}'
awk "$script" /etc/squid/squid.conf.template >/etc/squid/squid.conf

mkdir -p /var/log/squid /var/spool/squid
chown -R proxy:proxy /var/log/squid /var/spool/squid
# A container that was killed leaves its pid file behind, and squid would refuse to start beside "itself".
rm -f /run/squid.pid /var/run/squid/squid.pid
exec squid -f /etc/squid/squid.conf -NYC
