#!/usr/bin/env bash
# Sets up everything that is missing, then runs clang-tidy, with the checks of .clang-tidy, on the C++ of the library, the program, the
# operators and the benchmarks, a quarter of an hour on 2 cores. With arguments it looks at files whose paths match one of these only:
#     scripts/tidy.sh passes/rules/ tools/main.cpp
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --help ]; then
  sed -n '2,4s/^# \?//p' "$0"
  exit
fi
scripts/setup.sh
wanted=clang-tidy==23.1.4
if [ "$(.venv/bin/pip --disable-pip-version-check freeze | grep ^clang-tidy)" != $wanted ]; then
  echo "==> Python: installing $wanted into .venv"
  .venv/bin/pip --disable-pip-version-check install --quiet $wanted
fi

# How each file is compiled, without what only GCC knows and without headers that GCC has precompiled.
commands=$(mktemp -d)
trap 'rm -rf "$commands"' EXIT
sed -E 's/-Winvalid-pch|-fpch-preprocess|-Wshadow=local|-Wno-maybe-uninitialized|-include [^ ]*cmake_pch\.hxx//g' \
  build/compile_commands.json > "$commands/compile_commands.json"

[ $# != 0 ] || set -- passes/ tools/ python_bindings/ bench/
echo "==> clang-tidy: $*"
.venv/bin/run-clang-tidy.py -clang-tidy-binary .venv/bin/clang-tidy -p "$commands" -quiet -warnings-as-errors '*' "${@/#/$PWD/}"
