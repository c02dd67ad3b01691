#!/bin/sh
# Runs the scripts of /docker-entrypoint.d, then the command.
set -e
if [ "$1" = nginx ]; then
    for script in $(find /docker-entrypoint.d -follow -type f -name '*.sh' | sort -V); do
        if [ -x "$script" ]; then
            echo "$0: running $script" >&2
            "$script"
        fi
    done
fi
exec "$@"
