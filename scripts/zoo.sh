#!/usr/bin/env bash
# Sets up everything that is missing, then folds every network of the zoo and writes docs/models.md, an hour on 2 cores.
# With options it only prints: zoo.sh --help lists them.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
[ $# != 0 ] || set -- --markdown docs/models.md
echo "==> Zoo: folding networks"
exec .venv/bin/python tests/python/zoo_table.py "$@"
