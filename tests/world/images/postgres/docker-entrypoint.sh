#!/bin/sh
# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Starts the given command; where it is `postgres`, prepares an empty data directory first, from the environment variables
# POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, PGDATA, POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD.
set -eu

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}

initialise() {
    if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "$method" != trust ]; then
        echo "Error: Database is uninitialized and superuser password is not specified: set POSTGRES_PASSWORD." >&2
        exit 1
    fi
    passwords=$(mktemp)
    printf '%s\n' "${POSTGRES_PASSWORD:-}" >"$passwords"
    # Unquoted on purpose: the variable holds several arguments.
    # shellcheck disable=SC2086
    initdb --username="$user" --encoding=UTF8 ${POSTGRES_PASSWORD:+--pwfile="$passwords"} ${POSTGRES_INITDB_ARGS:-}
    rm -f "$passwords"
    # The socket and loopback are trusted (initdb's default); everybody who comes over the network says the password.
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

    if [ "$database" != postgres ]; then
        # Without TCP: nobody else meets the half-made server. Over the socket pg_isready already says yes.
        pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
        PGUSER=$user createdb --maintenance-db=postgres --owner="$user" "$database"
        pg_ctl -D "$PGDATA" -m fast -w stop
    fi
    echo "PostgreSQL init process complete; ready for start up."
}

case ${1:-} in
    -*) set -- postgres "$@" ;;
esac

if [ "${1:-}" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        # A bind mount comes as its host made it, owned by root.
        mkdir -p "$PGDATA"
        chmod 700 "$PGDATA"
        find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
        chown postgres:postgres /var/run/postgresql
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    if [ -s "$PGDATA/PG_VERSION" ]; then
        echo "PostgreSQL Database directory appears to contain a database; Skipping initialization"
    else
        initialise
    fi
fi
exec "$@"
