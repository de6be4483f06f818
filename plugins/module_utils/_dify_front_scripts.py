# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

"""What is run by the shell in nginx's container. It has a POSIX shell and coreutils or busybox, and no ps.

Workers are told apart by their titles: one that is shutting down ends what it has and takes no connection. Old workers
keep their listening sockets until the master has told them to go, some 100 ms after the new ones began.
"""

from __future__ import annotations

from ansible_collections.llmops.stack.plugins.module_utils._dify_front_config import FOLDER, MAIN

__all__ = ["HOLD", "HOSTS", "IN_FORCE", "IS_SETTLED", "READ", "RELOAD", "TRANSACTION", "WAKE"]

IN_FORCE = f"{FOLDER}/in-force"  # there once nginx has really read the closed configuration
HOSTS = "/etc/nginx/llmops.hosts"  # /etc/hosts as it was
# What follows is done as a whole or taken back. take and put write a file anew, and leave it alone where the disk is
# full; one that is mounted cannot be replaced.
TRANSACTION = rf"""set -e
take() {{{{
    cat >"$1.new" || {{{{ rm -f "$1.new"; return 1; }}}}
    mv -f "$1.new" "$1" 2>/dev/null || {{{{ cat "$1.new" >"$1"; rm -f "$1.new"; }}}}
}}}}
put() {{{{ take "$2" <"$1"; }}}}
trap 'code=$?; if [ $code -ne 0 ]; then
    set +e
    [ ! -e {HOSTS} ] || cat {HOSTS} >/etc/hosts
    {{undo}}
fi
rm -f {HOSTS}
exit $code' EXIT
"""
# Names and contents of nginx's files, with separators that no configuration has.
READ = rf"""for file in {MAIN} /etc/nginx/conf.d/*.conf {IN_FORCE}; do
[ -f "$file" ] && printf '\036%s\037' "$file" && cat "$file"; done; true"""

_WORKERS = r"""
workers() { # numbers of those that take connections
    for file in /proc/[0-9]*/cmdline; do
        title=$(tr '\0' ' ' <"$file" 2>/dev/null) || continue
        case $title in
            *'shutting down'*) ;;
            'nginx: worker process'*) number=${file#/proc/}; echo "${number%/cmdline}" ;;
        esac
    done
}
"""
# Nothing is done with a configuration that nginx would refuse, or with which it would serve nothing.
_SIGNAL = rf"""{_WORKERS}
said=$(nginx -t 2>&1) || {{ printf '%s\n' "$said" >&2; exit 3; }}
nginx -T 2>/dev/null | grep -q '^[[:space:]]*server[[:space:]]*{{' || {{
    echo 'its files are gone since it was started, so it would serve nothing; `docker compose restart nginx` helps' >&2
    exit 3
}}
before=" $(workers | tr '\n' ' ')"
nginx -s reload >/dev/null 2>&1 || {{ echo 'nginx does not take the signal to reload' >&2; exit 4; }}
"""
RELOAD = rf"""{_SIGNAL}
count=0
while [ $count -lt 100 ]; do
    fresh= stale=
    for one in $(workers); do
        case $before in *" $one "*) stale=1 ;; *) fresh=1 ;; esac
    done
    [ -n "$fresh" ] && [ -z "$stale" ] && exit 0
    count=$((count + 1)); sleep 0.1
done
echo 'the old workers of nginx did not give way within 10 s' >&2
exit 4
"""
# Each new worker is stopped as soon as it is seen; it is over when all old ones have been told to go.
HOLD = rf"""{_SIGNAL}
count=0
while [ $count -lt 200 ]; do
    fresh= stale=
    for one in $(workers); do
        case $before in *" $one "*) stale=1 ;; *) kill -STOP "$one" && fresh=1 ;; esac
    done
    [ -n "$fresh" ] && [ -z "$stale" ] && exit 0
    count=$((count + 1)); sleep 0.02
done
exit 4
"""
WAKE = rf"""{_WORKERS}
for one in $(workers); do kill -CONT "$one"; done
"""
IS_SETTLED = "! cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'worker process is shutting down'\n"
