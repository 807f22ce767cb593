#!/usr/bin/env bash
# Sets up everything that is missing, then makes N random models and checks what bnfold does with each: the same outputs as in eager, and a
# reason for every norm that it keeps. The first that fails is made as small as possible and printed. fuzz.sh --help lists the options.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat << 'END'
usage: scripts/fuzz.sh N [--seed S] [--processes P] [--exported]

Sets up what is missing, then makes N random models, folds each, and compares what comes out with eager. At the end it prints how many norms
were folded and kept, and why. The first model that fails is made as small as possible and printed, to be pasted and run.

  N               how many models; a hundred take about half a minute
  --seed S        that of the first hundred models; the same seed makes the same models. Random where it is not given
  --processes P   how many run at once; 1 where it is not given
  --exported      programs of torch.export in place of TorchScript modules; each takes a second or two
  --help          this text
END
}

wrong() { printf "fuzz: %s; --help lists the options\n" "$*" >&2; exit 2; }

number() {
  [[ $2 =~ ^[0-9]+$ ]] || wrong "$1 takes a number, not '$2'"
  printf '%s' "$2"
}

models='' options=()
while [ $# != 0 ]; do
  case $1 in
    --help) usage; exit ;;
    --seed | --processes) options+=("$1" "$(number "$1" "${2-}")"); shift 2 || shift ;;
    --exported) options+=("$1"); shift ;;
    *) [ -z "$models" ] || wrong "'$1' is not understood"
       models=$(number N "$1"); shift ;;
  esac
done
[ -n "$models" ] || wrong "say how many models"

scripts/setup.sh
echo "==> Fuzzing: models"
PYTHONWARNINGS=ignore::FutureWarning PYTHONPATH=python_bindings:tests/python exec .venv/bin/python -m generator.fuzz "$models" "${options[@]}"
