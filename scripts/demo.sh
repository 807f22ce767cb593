#!/usr/bin/env bash
# Sets up everything that is missing, then folds VGG16-BN and ResNet50 and prints what that changes. demo.sh --help for the options.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
echo "==> Demo: folding VGG16-BN and ResNet50"
PYTHONPATH=bench exec .venv/bin/python scripts/demo.py "$@"
