#!/usr/bin/env bash
# Build wheel and sdist, check what an index would refuse, and use the wheel in a clean environment
# from another folder:  bash scripts/package.sh [OUT, by default dist]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

python3 -m venv "$scratch/build"
"$scratch/build/bin/pip" install --quiet build twine
"$scratch/build/bin/python" -m build --outdir "$out" "$root"
"$scratch/build/bin/twine" check --strict "$out"/gradwatch-*

python3 -m venv "$scratch/clean"
"$scratch/clean/bin/pip" install --quiet -c "$root/constraints.txt" "$(ls "$out"/gradwatch-*.whl | tail -n 1)[plots]"
cd "$scratch" # where no gradwatch lies beside
"$scratch/clean/bin/python" - << 'PYTHON'
"""A training that does not learn, watched, and found by what was installed."""

import sys

import torch
from torch import nn

import gradwatch

assert gradwatch.__file__.startswith(sys.prefix), gradwatch.__file__
torch.manual_seed(0)
layers = [part for _ in range(12) for part in (nn.Linear(8, 8), nn.Sigmoid())]
model = nn.Sequential(*layers, nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with gradwatch.watch(model, optimizer, logdir="runs/deep", every_n_steps=5) as watch:
    for _ in range(100):
        nn.functional.cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 2, (16,))).backward()
        optimizer.step()
        optimizer.zero_grad()
print(watch.report())
assert [finding.kind for finding in watch.report().findings] == ["vanishing"]
PYTHON
"$scratch/clean/bin/gradwatch" --version
"$scratch/clean/bin/gradwatch" explain GW101 > /dev/null
"$scratch/clean/bin/gradwatch" report runs -o report.html && grep -q Plotly report.html
status=0
"$scratch/clean/bin/gradwatch" check runs > /dev/null || status=$?
test "$status" = 1 # there is a finding
echo "The wheel works."

"$scratch/build/bin/python" -m build --wheel --outdir "$out" "$root/native"
"$scratch/clean/bin/pip" install --quiet "$(ls "$out"/gradwatch_native-*.whl | tail -n 1)"
"$scratch/clean/bin/python" - << 'PYTHON'
"""What is installed beside gradwatch is what it reads with."""

import torch

from gradwatch.capture.native import measure_sums

assert measure_sums([torch.full((4,), 3.0)]).tolist() == [36.0]
PYTHON
echo "So does the compiled reading."
