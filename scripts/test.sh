#!/usr/bin/env bash
# Sets up everything that is missing, then runs every test: ctest for C++ and the program, pytest for Python.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh

failed=()
echo "==> Tests: ctest"
ctest --preset release || failed+=(ctest)
echo "==> Tests: pytest"
.venv/bin/python -m pytest tests/python || failed+=(pytest)

if [ ${#failed[@]} != 0 ]; then
  echo "==> Tests: failed in ${failed[*]}" >&2
  exit 1
fi
echo "==> Tests: all passed"
