#!/usr/bin/env bash
# Holds `sela serve` against Qdrant's official Python client and LangChain's store over it, both
# unchanged and from PyPI, on a server of its own that is gone afterwards.
#
#   tests/clients/qdrant.sh SELA_BINARY
#
# The clients are installed into a virtual environment: SELA_VENV, which is made where it is not
# there and used again, else one that goes too. With SELA_HOME the model is taken from there; else
# it is fetched.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -ne 1 ] || [ ! -x "$1" ]; then
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
sela=$(realpath "$1")
home=$(mktemp -d "${TMPDIR:-/tmp}/sela-qdrant-XXXXXX")
server=
ended() {
    # Where it is stopped for a failure, nobody waits for its good end.
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server"; } || true
    rm -rf "$home"
}
trap ended EXIT

venv=${SELA_VENV:-$home/venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check qdrant-client langchain-qdrant httpx

if [ -n "${SELA_HOME:-}" ] && [ -d "$SELA_HOME/models" ]; then
    ln -s "$(realpath "$SELA_HOME/models")" "$home/models"
fi
# Nothing but this script tells the server what to do.
for name in $(compgen -e SELA_ || true); do unset "$name"; done
"$sela" --quiet --home "$home" model pull
key=$("$sela" --quiet --home "$home" key create --role admin --name clients)

"$sela" --home "$home" serve --bind 127.0.0.1:0 2>"$home/log" &
server=$!
said() { sed -n "s/.*$1.*/\1/p" "$home/log" | head -1; }
until [ -n "$(said 'ready after \([0-9]*\) ms')" ]; do
    if ! kill -0 "$server" 2>/dev/null; then
        cat "$home/log" >&2
        echo "error: the server did not start" >&2
        exit 1
    fi
    sleep 0.1
done

export PYTHONDONTWRITEBYTECODE=1 SELA_KEY=$key
SELA_URL=$(said 'listening on \([^ ]*\)')
export SELA_URL
for script in qdrant_points langchain_qdrant_client; do
    "$venv/bin/python" "$here/$script.py" || {
        grep -iE 'error|panic' "$home/log" >&2 || true
        echo "error: $script.py failed" >&2
        exit 1
    }
done

kill "$server"
wait "$server" || { echo "error: the server did not end well" >&2; exit 1; }
server=
if grep -q panicked "$home/log"; then
    cat "$home/log" >&2
    exit 1
fi
