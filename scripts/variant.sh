# Reads the options of setup.sh and test.sh: with which LibTorch, and so where. To be sourced, then: read_variant PURPOSE "$@".
# shellcheck shell=bash disable=SC2034  # those who source it use what it sets

torch=               # the version from PyPI; empty: what requirements.txt asks for
libtorch=pypi        # or debian
venv=.venv           # empty: no Python
build=build          # the folder of the build
program=${0##*/}

usage() {
  cat << END
usage: scripts/$program [--torch VERSION | --libtorch debian]

$1

  (no option)         with the torch of requirements.txt, in .venv and build/
  --torch VERSION     with another torch from PyPI, as 2.11.0, in .venv-VERSION and build-VERSION/
  --libtorch debian   with Debian's LibTorch, in build-debian/: C++ alone, no Python
  --help              this text
END
}

wrong() { printf '%s: %s; --help lists the options\n' "${program%.sh}" "$*" >&2; exit 2; }

choose_torch() {
  [[ $1 =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || wrong "--torch takes a version as 2.11.0, not '$1'"
  torch=$1 venv=.venv-$1 build=build-$1
}

choose_libtorch() {
  [ "$1" = debian ] || wrong "--libtorch takes debian, not '$1'"
  libtorch=debian venv='' build=build-debian
}

read_variant() {
  local purpose=$1
  shift
  case "$#:${1-}" in
    0:) ;;
    1:--help) usage "$purpose"; exit ;;
    [12]:--torch) choose_torch "${2-}" ;;
    [12]:--libtorch) choose_libtorch "${2-}" ;;
    *) wrong "'$*' is not understood" ;;
  esac
}
