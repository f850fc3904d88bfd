#!/bin/sh
# Starts the server on all addresses of the container. Arguments are those of `reviewguard serve`.
set -eu
model="${REVIEWGUARD_MODEL:-/model}"
if [ -e "$model/reviewguard.json" ]; then
    set -- "$model" "$@"
fi
# exec: the server itself gets the signals of the container.
exec reviewguard serve --host 0.0.0.0 --port 8000 "$@"
