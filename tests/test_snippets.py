"""What the pages show is run, and the figures that they quote stand where they were measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
PAGES = ("seeds", "verdicts", "migration", "howto")


def read_blocks(page: Path) -> str:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return "\n".join(blocks)


class Stand:
    """For a framework's trainer: takes anything, and keeps it."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.given = (*given, *named.values())

    def train(self) -> None:
        """As a trainer has it."""


def make_names() -> dict[str, Any]:
    """What the pages take for granted."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    batches = [(torch.randn(16, 8), torch.randint(0, 2, (16,))) for _ in range(12)]
    trainer = SimpleNamespace(Trainer=Stand)
    return {
        "torch": torch, "nn": nn, "model": model, "loader": batches, "batches": batches,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "loss_fn": nn.CrossEntropyLoss(),
        "transformers": trainer, "Trainer": Stand, "pl": trainer, "args": None, "data": None,
        "build_model": lambda: model,
    }  # fmt: skip


@pytest.mark.parametrize("page", [*(f"docs/{name}.md" for name in PAGES), "README.md"])
def test_what_a_page_shows_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    source = read_blocks(ROOT / page)
    assert source
    exec(compile(source, page, "exec"), make_names())


def test_the_tutorial_is_what_its_script_runs() -> None:
    cells = run_path(str(ROOT / "docs" / "tutorial.py"))["CELLS"]
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    assert [("".join(cell["source"]), cell["cell_type"]) for cell in notebook["cells"]] == [
        (source, kind) for kind, source in cells
    ]
    shown = json.dumps(notebook["cells"])
    assert "Vanishing gradient" in shown
    assert "Every one of 12 weights learns" in shown or "weights learn" in shown
