#!/usr/bin/env bash
# Sets up everything that is missing, then hands networks to each tool that takes TorchScript, before and after folding, and writes
# docs/consumers.md: some hours on 2 cores. The tools go into an environment of their own, .venv-consumers. With options it only prints:
# consumers.sh --help lists them; with --set-up alone it ends behind the installation.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
venv=.venv-consumers
list=tests/consumers/packages.txt
stamp=$venv/.requirements
wanted=$(cat requirements.txt "$list" | sha256sum)
if [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then
  echo "==> Consumers: $venv is up to date"
else
  echo "==> Consumers: installing $list into $venv (2 GB, some minutes)"
  .venv/bin/python -m venv --clear "$venv"
  # What is not in the list comes from .venv, torch first of all. Relative, so that the checkout can be moved.
  "$venv/bin/python" -c "
import os, pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path('purelib'))
behind = [pathlib.Path('.venv', site.relative_to(pathlib.Path('$venv').absolute())), 'python_bindings']
(site / 'bnfold.pth').write_text(''.join(os.path.relpath(path, site) + '\n' for path in behind))"
  # Some of the packages ask for another torch than this one, with which they run. The list has all that they need.
  "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps -r "$list"
  echo "$wanted" > "$stamp"
fi
[ "${1-}" != --set-up ] || exit 0
[ $# != 0 ] || set -- --markdown docs/consumers.md
echo "==> Consumers: converting networks"
exec "$venv/bin/python" tests/consumers/consumers_table.py "$@"
