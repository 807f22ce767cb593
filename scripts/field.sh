#!/usr/bin/env bash
# Sets up everything that is missing, then folds networks of other fields and writes docs/field.md, about 20 minutes on 2 cores.
# Their packages go into an environment of their own, .venv-field. With options it only prints: field.sh --help lists them.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
scripts/setup.sh
venv=.venv-field
make_environment Field "$venv" tests/python/field_packages.txt
[ $# != 0 ] || set -- --markdown docs/field.md
echo "==> Field: folding networks"
exec "$venv/bin/python" tests/python/field_table.py "$@"
