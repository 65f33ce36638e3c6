"""docs/extending.md, applied to a copy of gradwatch: what it adds has the effect that it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"```\{code-block\} \w+\n:caption: (.*?)\n\n(.*?)```", re.DOTALL)
SECTIONS = ("A rule", "A statistic", "An activation", "A remedy", "A card")


@dataclass(frozen=True)
class Block:
    """One block of the page: a file, or what is added at a place in one."""

    path: str
    place: str
    text: str


@dataclass(frozen=True)
class Effort:
    """What an extension took."""

    files: int
    lines: int
    lines_elsewhere: int


def read_section(title: str) -> list[Block]:
    """The blocks below a heading."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    blocks = [(*caption.partition(", "), code) for caption, code in BLOCK.findall(text)]
    return [Block(path, place, code) for path, _, place, code in blocks]


def measure_effort(title: str) -> Effort:
    """The file with the thing itself, its lines that are not empty, and those elsewhere."""
    own, *others = read_section(title)
    return Effort(1, count_lines(own), sum(map(count_lines, others)))


def count_lines(block: Block) -> int:
    return sum(bool(line.strip()) for line in block.text.splitlines())


def apply(root: Path, block: Block) -> None:
    """Write a file, add a line to the metadata of an installed package, or to a tuple's end."""
    if block.path == "pyproject.toml":
        group = re.findall(r'"(.*)"', block.place)[0]
        points = root / f"{group}-1.dist-info" / "entry_points.txt"
        points.parent.mkdir()
        (points.parent / "METADATA").write_text(f"Name: {group}\nVersion: 1\n", encoding="utf-8")
        points.write_text(f"[{group}]\n{block.text.replace(chr(34), '')}", encoding="utf-8")
    elif block.place:
        extend_tuple(root / block.path, block.place.split()[-1], block.text)
    else:
        path = root / block.path
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.text, encoding="utf-8")


def extend_tuple(path: Path, name: str, text: str) -> None:
    source = path.read_text(encoding="utf-8")
    begin = re.search(rf"^{name}\b.*= \($", source, re.MULTILINE)
    assert begin is not None, f"no tuple {name} in {path}"
    end = source.index("\n)", begin.end()) + 1
    path.write_text(source[:end] + text + source[end:], encoding="utf-8")


TRAIN = """
import sys
import torch, gradwatch
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(0)

class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(SCALE * x)

def train(act, rate=0.1, scale=1.0, logdir=None):
    global SCALE
    SCALE = scale
    model = nn.Sequential(nn.Linear(4, 16), act(), nn.Linear(16, 16), act(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    x, y = torch.randn(64, 4), torch.randint(2, (64,))
    with gradwatch.watch(model, optimizer, logdir=logdir) as watch:
        for step in range(12):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            if GROWS and step == 3:
                with torch.no_grad():
                    model[2].weight.mul_(50)
    return watch.report()
GROWS = False
"""

EFFECTS = {
    "A rule": """
GROWS = True
from gradwatch.judgement import judge_logdir
live = [one.code for one in train(nn.Tanh, logdir="log").findings]
(verdict,) = judge_logdir("log").verdicts
assert "ACME1" in live and "ACME1" in [one.code for one in verdict.findings], live
""",
    "A statistic": """
from gradwatch.log.reader import read_runs
record = train(nn.Tanh, logdir="log").history.latest.record
(run,) = read_runs("log")
*_, last = run.records()
assert (last.param("grad_peak") > 0).all()
assert (last.param("grad_peak") == record.param("grad_peak")).all()
""",
    "An activation": """
report = train(Erf, scale=1000.0)
record = report.history.latest.record
assert [one.type for one in record.layer_set.layers].count("erf") == 2, record.layer_set.layers
assert "GW301" in [one.code for one in report.findings], report
""",
    "A remedy": """
model = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2))
trials = gradwatch.try_remedies(
    model, [(torch.randn(16, 4), torch.randint(2, (16,)))], nn.CrossEntropyLoss(),
    optimizer=torch.optim.SGD(model.parameters(), lr=0.1), steps=4)
assert any("SELU" in one.name for one in trials), trials
""",
    "A card": """
import gzip, json
from gradwatch.display.figures.series import columns_of
from gradwatch.tensorboard_plugin.snapshot import Snapshot
report = train(nn.Tanh)
shown = Snapshot({}, columns=columns_of(report.history.records))
answer = json.loads(gzip.decompress(shown.draw()))
assert answer["cards"][-1]["title"] == "Gradient below a millionth", answer["cards"]
assert answer["figures"]["grad_floor"]["data"][0]["type"] == "heatmap"
""",
}


FORKS = """
import json, os, sys, traceback
import torch

for root, folder, code in json.load(sys.stdin):
    child = os.fork()
    if not child:
        sys.path.insert(0, root)
        os.chdir(folder)
        try:
            exec(code, {"__name__": "__main__"})
        except BaseException:
            with open("error.txt", "w") as file:
                traceback.print_exc(file=file)
        os._exit(0)
    os.waitpid(child, 0)
"""
"""Runs scripts, each in a process of its own that has loaded torch and no gradwatch yet."""


def run_effects(copies: dict[str, Path], folder: Path) -> dict[str, str]:
    """With what each effect's script ended, ``""`` for well, when it knows only its copy."""
    tasks = []
    for number, (title, root) in enumerate(copies.items()):
        (folder / str(number)).mkdir(parents=True)
        tasks.append((str(root), str(folder / str(number)), TRAIN + EFFECTS[title]))
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        input=json.dumps(tasks),
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PATH": "", "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    errors = [folder / str(number) / "error.txt" for number in range(len(tasks))]
    texts = [path.read_text(encoding="utf-8") if path.exists() else "" for path in errors]
    return dict(zip(copies, texts, strict=True))


def copy_package(root: Path) -> Path:
    """With what is compiled, which stays valid, but for files that are just being written."""
    ignored = shutil.ignore_patterns("*.pyc.*")
    shutil.copytree(ROOT / "gradwatch", root / "gradwatch", ignore=ignored)
    return root


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_each_extension_has_its_effect_and_nothing_else_has(tmp_path: Path) -> None:
    bare = copy_package(tmp_path / "bare")
    extended = {title: copy_package(tmp_path / title) for title in SECTIONS}
    for title, root in extended.items():
        for block in read_section(title):
            apply(root, block)
    without = run_effects(dict.fromkeys(SECTIONS, bare), tmp_path / "without")
    assert [title for title, error in without.items() if not error] == []
    found = run_effects(extended, tmp_path / "with")
    assert found == dict.fromkeys(SECTIONS, "")


@pytest.mark.parametrize("title", SECTIONS)
def test_an_extension_takes_what_the_page_says(title: str) -> None:
    row = re.search(
        rf"^\| {title.lower()} \| (\d) \| (\d+) \| (\d) \|$", PAGE.read_text(), re.MULTILINE
    )
    assert row is not None
    assert Effort(*map(int, row.groups())) == measure_effort(title)
    assert measure_effort(title).lines_elsewhere <= 1
