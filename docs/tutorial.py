"""Runs the tutorial's cells and writes them with what they show as docs/tutorial.ipynb.

    python docs/tutorial.py

Needs ``gradwatch[demo]``. The notebook opens in Jupyter, and on pages that show notebooks, without
a kernel: the report's own view needs no script.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("tutorial.ipynb")

CELLS: tuple[tuple[str, str], ...] = (
    (
        "markdown",
        """# From symptom to cure

A network of twelve layers is to read handwritten digits. It trains without an error, and learns
nothing. What is wrong, and how would one have known?""",
    ),
    (
        "code",
        """from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import gradwatch

images, labels = load_digits(return_X_y=True)
x, x_test, y, y_test = (
    torch.as_tensor(part)
    for part in train_test_split(images / 16 - 0.5, labels, random_state=0, test_size=0.25)
)
x, x_test = x.float(), x_test.float()
print(f"{len(x)} digits to learn from, {len(x_test)} to be read")""",
    ),
    (
        "code",
        """def build(activation):
    widths = [64] + 11 * [32] + [10]
    model = nn.Sequential()
    for place, (before, after) in enumerate(pairwise(widths), start=1):
        model.add_module(f"fc{place}", nn.Linear(before, after))
        if place < 12:
            model.add_module(f"act{place}", activation())
    return model


def train(model, steps=1000, **how):
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    with gradwatch.watch(model, optimizer, **how) as watch:
        for _ in range(steps):
            batch = torch.randint(len(x), (64,))
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    right = (model(x_test).argmax(1) == y_test).float().mean()
    print(f"loss {loss.item():.2f}, {right:.0%} of the digits read right")
    return watch.report()""",
    ),
    ("markdown", "## The symptom\n\nGuessing would read one digit in ten."),
    ("code", "torch.manual_seed(0)\nunhealthy = train(build(nn.Sigmoid))"),
    (
        "markdown",
        """The loss stands at ln 10 = 2.30, what a network has that knows nothing. Is the learning
rate too small? Are the labels wrong? The report does not guess: it has seen how much of the loss's
change each layer had a part in.

## The diagnosis""",
    ),
    ("code", "unhealthy"),
    (
        "markdown",
        """The first layers get next to no gradient. Each sigmoid passes on at most a quarter of it,
and there are eleven. The remedy names the modules. Instead of believing it, try it: each remedy
that fits is applied to a copy of the model, and trained for some steps.

## The cure""",
    ),
    (
        "code",
        """torch.manual_seed(0)
batches = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 1280, 64)]
trials = gradwatch.try_remedies(build(nn.Sigmoid), batches, nn.CrossEntropyLoss(), steps=20)
print(trials[0].name, "->", trials[0].outcome)""",
    ),
    (
        "code",
        """torch.manual_seed(0)
model = build(nn.ReLU)
for layer in model:
    if isinstance(layer, nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
well = train(model)""",
    ),
    ("code", "well"),
    (
        "markdown",
        """## So that it stays so

One test in the suite, and whoever brings the sigmoids back hears of it in a second:

```python
def test_gradients_reach_every_layer(gradwatch_check):
    gradwatch_check.check(build(nn.ReLU), batches, nn.CrossEntropyLoss())
```""",
    ),
)  # fmt: skip


def run_cells() -> list[dict[str, Any]]:
    """Every cell with what it shows, in one namespace."""
    namespace: dict[str, Any] = {}
    cells = []
    for place, (kind, source) in enumerate(CELLS):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell{place}", "metadata": {}}
        cell["source"] = source.splitlines(keepends=True)
        if kind == "code":
            count = sum(cell_kind[0] == "code" for cell_kind in CELLS[: place + 1])
            cell |= {"execution_count": count, "outputs": _run(source, namespace, count)}
        cells.append(cell)
    return cells


def _run(source: str, namespace: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What a notebook would show below the cell: what is printed, and its last expression."""
    body = ast.parse(source).body
    tail = body.pop() if isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "<cell>", "exec"), namespace)
        value = eval(ast.unparse(tail), namespace) if tail is not None else None
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        shown = {"text/plain": [repr(value)], "text/html": [value._repr_html_()]}
        result = {"output_type": "execute_result", "execution_count": count, "metadata": {}}
        outputs.append({**result, "data": shown})
    return outputs


def main() -> None:
    """Run and write; one thread serves networks of this size best."""
    import torch

    torch.set_num_threads(1)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": run_cells(),
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    PATH.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
