#!/usr/bin/env bash
# Rewrites constraints.txt from pyproject.toml: one file for every supported Python and system.
# Usage: scripts/pin.sh [package==version ...]   holds these back, such as torch==2.13.0
set -euo pipefail
cd "$(dirname "$0")/.."
held=("${@:-torch==2.13.0}")
python3 -m venv .venv-pin
.venv-pin/bin/pip install --quiet uv
{
    echo "# Written by scripts/pin.sh; do not edit. torch pins the CUDA packages that it needs itself."
    .venv-pin/bin/uv pip compile --quiet --no-config --universal --python-version 3.10 \
        --extra test --extra docs --no-header --no-annotate \
        --constraint <(printf '%s\n' "${held[@]}") pyproject.toml |
        grep -v -E '^(nvidia|cuda|triton)-?'
} > constraints.new
mv constraints.new constraints.txt
# The same versions with hashes, for "pip install --require-hashes -r requirements.lock"; pip takes no
# hashes together with -e, so that constraints.txt stays for development.
.venv-pin/bin/uv pip compile --quiet --no-config --universal --python-version 3.10 --generate-hashes \
    --extra plots --extra demo --extra lightning --no-header --no-annotate \
    --constraint constraints.txt --output-file requirements.lock pyproject.toml > /dev/null
rm -r .venv-pin
