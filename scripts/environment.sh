# An environment that stands before .venv, for packages that the tests do without. To be sourced, then: make_environment TITLE FOLDER LIST.
# shellcheck shell=bash

# Installs the packages of LIST into FOLDER, unless that was done: it has a stamp of what was asked for.
make_environment() {
  local title=$1 folder=$2 list=$3
  local stamp=$folder/.requirements wanted
  wanted=$(cat requirements.txt "$list" | sha256sum)
  if [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then
    echo "==> $title: $folder is up to date"
    return
  fi
  echo "==> $title: installing $list into $folder (2 GB, some minutes)"
  .venv/bin/python -m venv --clear "$folder"
  # What is not in the list comes from .venv, torch first of all. Relative, so that the checkout can be moved.
  "$folder/bin/python" -c "
import os, pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path('purelib'))
behind = [pathlib.Path('.venv', site.relative_to(pathlib.Path('$folder').absolute())), 'python_bindings']
(site / 'bnfold.pth').write_text(''.join(os.path.relpath(path, site) + '\n' for path in behind))"
  # Some of the packages ask for another torch than this one, with which they run. The list has all that they need.
  "$folder/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps -r "$list"
  echo "$wanted" > "$stamp"
}
