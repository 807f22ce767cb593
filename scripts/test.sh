#!/usr/bin/env bash
# Sets up everything that is missing, then runs every test: ctest for C++ and the program, pytest for Python. With an option, the same
# with another LibTorch: test.sh --help lists them.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/variant.sh
read_variant "Sets up what is missing, and runs the tests: ctest for C++, pytest for Python." "$@"
scripts/setup.sh "$@"
# The package looks in build/ unless it is told where.
[ "$build" = build ] || export BNFOLD_LIBRARY=$PWD/$build/lib/libbnfold_ops.so

failed=()
echo "==> Tests: ctest"
ctest --test-dir "$build" --output-on-failure --no-tests=error -j 2 || failed+=(ctest)
if [ -n "$venv" ]; then
  echo "==> Tests: pytest"
  "$venv/bin/python" -m pytest tests/python -n 2 --dist loadfile || failed+=(pytest)
else
  echo "==> Tests: pytest is not run, Debian's LibTorch is tested without Python"
fi

if [ ${#failed[@]} != 0 ]; then
  echo "==> Tests: failed in ${failed[*]}" >&2
  exit 1
fi
echo "==> Tests: all passed"
