#!/usr/bin/env bash
# Checks the committed models against models/SHA256SUMS, so that a cut-off clone is noticed before a load fails.
set -euo pipefail
cd "$(dirname "$0")/../models"
if ! sha256sum --check --quiet --strict SHA256SUMS; then
  echo "check-models: a model under models/ is not the one that was committed." >&2
  echo "  By hand: git checkout -- models   (with Git LFS or a shallow copy, fetch the files first)" >&2
  exit 1
fi
echo "models: $(wc -l <SHA256SUMS) files are as committed"
