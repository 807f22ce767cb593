#!/usr/bin/env bash
# Sets up everything that is missing, then folds networks of other fields and writes docs/field.md, about 20 minutes on 2 cores.
# Their packages go into an environment of their own, .venv-field. With options it only prints: field.sh --help lists them.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
venv=.venv-field
list=tests/python/field_packages.txt
stamp=$venv/.requirements
wanted=$(cat requirements.txt "$list" | sha256sum)
if [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then
  echo "==> Field: $venv is up to date"
else
  echo "==> Field: installing $list into $venv (2 GB, some minutes)"
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
[ $# != 0 ] || set -- --markdown docs/field.md
echo "==> Field: folding networks"
exec "$venv/bin/python" tests/python/field_table.py "$@"
