#!/usr/bin/env bash
# Sets up everything that is missing, then hands networks to each tool that takes TorchScript or exported programs, before and after folding, and writes
# docs/consumers.md: some hours on 2 cores. The tools go into an environment of their own, .venv-consumers. With options it only prints:
# consumers.sh --help lists them; with --set-up alone it ends behind the installation.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
scripts/setup.sh
venv=.venv-consumers
make_environment Consumers "$venv" tests/consumers/packages.txt
[ "${1-}" != --set-up ] || exit 0
[ $# != 0 ] || set -- --markdown docs/consumers.md
echo "==> Consumers: converting networks"
exec "$venv/bin/python" tests/consumers/consumers_table.py "$@"
