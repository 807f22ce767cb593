#!/usr/bin/env bash
# Sets up everything that is missing, then builds the documentation as a site in build/site. Every warning is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
echo "==> Documentation: building"
rm -rf build/site build/site-cache  # Sphinx warns of a page only when it reads it anew
.venv/bin/python -m sphinx -q -W --keep-going -d build/site-cache -c docs/site . build/site
echo "==> Documentation: build/site/index.html"
