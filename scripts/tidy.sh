#!/usr/bin/env bash
# Sets up everything that is missing, then runs clang-tidy, with the checks of .clang-tidy, on the C++ of the library, the program, the
# operators and the benchmarks, half an hour on 2 cores. With arguments it looks at files whose paths match one of these only:
#     scripts/tidy.sh passes/rules/ tools/main.cpp
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --help ]; then
  sed -n '2,4s/^# \?//p' "$0"
  exit
fi
if ! command -v run-clang-tidy > /dev/null; then
  [ "$(id -u)" = 0 ] || { echo "tidy: clang-tidy is missing, and only root can install it: sudo apt-get install clang-tidy" >&2; exit 1; }
  echo "==> Packages: installing clang-tidy"
  apt-get update > /dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends clang-tidy > /dev/null
fi
scripts/setup.sh

# How each file is compiled, without what only GCC knows and without headers that GCC has precompiled.
commands=$(mktemp -d)
trap 'rm -rf "$commands"' EXIT
sed -E 's/-Winvalid-pch|-fpch-preprocess|-Wshadow=local|-Wno-maybe-uninitialized|-include [^ ]*cmake_pch\.hxx//g' \
  build/compile_commands.json > "$commands/compile_commands.json"

[ $# != 0 ] || set -- passes/ tools/ python_bindings/ bench/
echo "==> clang-tidy: $*"
run-clang-tidy -p "$commands" -quiet "${@/#/$PWD/}"
