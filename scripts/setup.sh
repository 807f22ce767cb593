#!/usr/bin/env bash
# Sets up everything that bnfold needs, on Debian 12 or a relative of it: packages, .venv with PyTorch, the build in build/. With an
# option, the same for another LibTorch beside it: setup.sh --help lists them.
# What is there already is left alone, so running it again costs seconds and no network. Packages need root; nothing else does.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/variant.sh
read_variant "Installs what is missing, and builds bnfold." "$@"

packages=(g++ cmake ninja-build libfmt-dev libcli11-dev nlohmann-json3-dev libgtest-dev libgmock-dev libbenchmark-dev libdnnl-dev doxygen graphviz)
optional_packages=(ccache mold)  # a faster build, nothing else
oldest_python=3.11               # what the versions in requirements.txt ask for
[ "$libtorch" != debian ] || packages+=(libtorch-dev)

step() { printf '==> %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Runs a command that talks a lot, and shows what it said only where it fails.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" > "$log" 2>&1 || status=$?
  [ "$status" = 0 ] || cat "$log" >&2
  rm -f "$log"
  return "$status"
}

# The packages among the arguments that are not installed.
missing_of() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || echo "$package"
  done
}

# new_enough PYTHON MODULES: it runs, is new enough, and has the modules
new_enough() {
  "$1" -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$oldest_python'.split('.'))))" 2> /dev/null &&
    "$1" -c "import $2" 2> /dev/null
}

# The first python3 on PATH that can make a virtual environment.
find_python() {
  local python
  for python in $(type -ap python3); do
    if new_enough "$python" "venv, ensurepip"; then
      echo "$python"
      return
    fi
  done
}

venv_works() { new_enough "$venv/bin/python" pip; }

install_packages() {
  local missing
  if ! command -v dpkg-query > /dev/null; then
    step "Packages: not checked, this is no Debian; wanted are the equivalents of ${packages[*]}"
    return
  fi
  if [ "$(id -u)" = 0 ]; then
    mapfile -t missing < <(missing_of "${packages[@]}" "${optional_packages[@]}")
  else
    mapfile -t missing < <(missing_of "${packages[@]}")
  fi
  [ -z "$venv" ] || venv_works || [ -n "$(find_python)" ] || missing+=(python3-venv)
  if [ ${#missing[@]} = 0 ]; then
    step "Packages: all there"
    return
  fi
  [ "$(id -u)" = 0 ] || fail "these packages are missing, and only root can install them: sudo apt-get install ${missing[*]}"
  step "Packages: installing ${missing[*]}"
  quietly apt-get update || fail "apt-get update failed"
  quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" || fail "apt-get install failed"
}

# requirements.txt, or the same with another torch and the torchvision that belongs to it, which pip finds.
requirements() {
  if [ -z "$torch" ]; then
    cat requirements.txt
  else
    sed "s/^torch==.*/torch==$torch/; s/^torchvision==.*/torchvision/" requirements.txt
  fi
}

# The virtual environment with the required packages, and with bnfold as it lies in this checkout.
install_python_packages() {
  local python wanted progress=off stamp=$venv/.requirements
  wanted=$(requirements | sha256sum)
  if venv_works && [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then
    step "Python: $venv is up to date"
  else
    if ! venv_works; then
      python=$(find_python)
      [ -n "$python" ] || fail "no python3 on PATH is $oldest_python or newer and has venv and ensurepip"
      step "Python: making $venv with $("$python" --version)"
      "$python" -m venv --clear "$venv"
    fi
    step "Python: installing ${torch:+torch $torch and the rest of }requirements.txt into $venv (PyTorch with CUDA: 5 GB, some minutes)"
    [ ! -t 1 ] || progress=on
    "$venv/bin/python" -m pip --disable-pip-version-check install --progress-bar "$progress" -r <(requirements) ||
      fail "pip could not install ${torch:+torch $torch and the rest of }requirements.txt"
    echo "$wanted" > "$stamp"
    rm -f "$build/CMakeCache.txt"  # it may point at a LibTorch that is gone
  fi
  # Relative, so that the checkout can be moved.
  "$venv/bin/python" -c "
import os, pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path('purelib'))
(site / 'bnfold.pth').write_text(os.path.relpath('python_bindings', site) + '\n')"
}

# What tells cmake/FindLibTorch.cmake which one to take.
where_libtorch_is() {
  if [ "$libtorch" = debian ]; then
    echo "-DLibTorch_ROOT=/usr"
  else
    echo "-DLibTorch_PYTHON=$PWD/$venv/bin/python"
  fi
}

build() {
  # A file that includes LibTorch takes the compiler about 1.5 GB.
  local jobs gigabytes
  jobs=$(nproc)
  gigabytes=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
  [ $((gigabytes * 2 / 3)) -ge "$jobs" ] || jobs=$((gigabytes * 2 / 3 > 1 ? gigabytes * 2 / 3 : 1))
  if [ ! -e "$build/build.ninja" ] || [ ! -e "$build/CMakeCache.txt" ] || [ CMakePresets.json -nt "$build/build.ninja" ]; then
    step "Build: configuring $build/"
    quietly cmake --preset release -B "$build" "$(where_libtorch_is)" || fail "CMake could not configure $build/"
  fi
  step "Build: compiling in $build/, $jobs at a time"
  CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$jobs} cmake --build "$build" || fail "the build failed"
}

install_packages
[ -z "$venv" ] || install_python_packages
build
