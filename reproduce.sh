#!/usr/bin/env bash
# Makes .venv if it is missing or requirements.lock changed, then runs `medcrypt reproduce` with the arguments given.
# Paths among the arguments are taken from the current folder. `bash reproduce.sh --help` lists the options.
set -e
here=$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
. "$here/scripts/venv.sh"
ready_venv "$here"
echo "reproduce.sh: .venv is ready, running: medcrypt reproduce $*" >&2
exec "$here/.venv/bin/medcrypt" reproduce "$@"
