#!/usr/bin/env bash
set -Eeo pipefail

# The server does not run as root.
if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
	chown postgres "$PGDATA"
	chmod 0700 "$PGDATA"
	exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$BASH_SOURCE" "$@"
fi

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
	if [ -z "$POSTGRES_PASSWORD" ]; then
		echo >&2 'a password is needed: POSTGRES_PASSWORD'
		exit 1
	fi
	initdb --username=postgres --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") --auth-host=scram-sha-256 --no-sync
	pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
	for script in /docker-entrypoint-initdb.d/*.sql; do
		psql -v ON_ERROR_STOP=1 --no-psqlrc -f "$script"
	done
	pg_ctl -D "$PGDATA" -m fast -w stop
	echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
fi

exec "$@"
