"""Write docs/compatibility.md: every case of "any PyTorch model", its tests and their results.

``python docs/compatibility.py`` runs the tests and writes the page; with paths of JUnit files it
only writes, from earlier runs of ``pytest --junitxml``, as in several environments: a test that was
skipped in one counts as it went in another. A row whose tests are in none of them stays as it was.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import torch

HERE = Path(__file__).parent
PAGE = HERE / "compatibility.md"

ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Activations called as functions, in every spelling; gates", ("capture.test_functions",)),
    ("Inside `nn.LSTM`, `nn.GRU`, `nn.RNN`; cells in a loop", ("capture.test_recurrent",)),
    ("One module called several times; weight tying", ("capture.test_calls",)),
    ("`inplace=True`, views, in place after the call", ("capture.test_inplace",)),
    ("Structured outputs, keyword inputs, modules not called", ("capture.test_outputs",)),
    ("Activation checkpointing, both kinds", ("capture.test_checkpoint",)),
    (
        "Accumulation, clipping, several optimizers, LBFGS, optimizer in backward",
        ("capture.test_optimizers",),
    ),
    ("Autocast bf16 and fp16, GradScaler, skipped steps, underflow", ("capture.test_amp",)),
    ("`torch.compile` in all ways", ("capture.test_compile",)),
    (
        "Statistics inside a compiled graph; what is followed eagerly",
        ("capture.test_compiled_variant",),
    ),
    (
        "Other models' compiled code around a watched forward: runs and is compiled as ever",
        ("capture.test_compiled_neighbours",),
    ),
    ("DistributedDataParallel, 2 and 4 processes (gloo)", ("capture.test_ddp",)),
    ("FSDP of both kinds on gloo", ("capture.test_fsdp",)),
    ("deepcopy, pickle, save, export, script while watched", ("capture.test_no_trace",)),
    ("Exceptions anywhere, Ctrl-C", ("capture.test_errors",)),
    ("Double backward, `functional_call`, vmap, evaluation", ("capture.test_modes",)),
    (
        "Sparse, complex, fake-quant, parametrised, lazy, changing modules",
        ("capture.test_exotic",),
    ),
    ("Forgotten watches in five ways, second watches", ("test_abandoned",)),
    ("1,000 signals in the middle of gradwatch's own code", ("capture.test_signals",)),
    (
        "Ranks that come late or not at all: `join`, a skipped step, a dead rank, one watch",
        ("capture.test_late_ranks",),
    ),
    (
        "Optimizers that are none of torch's: handmade, schedule-free, with master copies",
        ("capture.test_stepped_objects",),
    ),
    ("Log directories behind an address (fsspec)", ("log.test_remote",)),
    ("Statistics against float64 oracles", ("capture.test_statistics",)),
    ("CUDA, CUDA graphs: no synchronisation", ("capture.test_cuda",)),
    ("Lightning: automatic, manual, DDP, precision, accumulation", ("test_lightning",)),
    (
        "Lightning's `ddp` and `ModelParallelStrategy`, 2 processes (gloo)",
        ("test_lightning_strategies",),
    ),
    ("Hugging Face Trainer", ("test_transformers",)),
    ("Accelerate", ("test_accelerate",)),
    (
        "torchrun, Fabric, DeepSpeed, Ignite, skorch, fastai, torchtune, Composer, schedule-free",
        ("optional.test_frameworks",),
    ),
    (
        "DeepSpeed ZeRO 1 to 3: the engine on 2 processes (gloo), the Trainer on one",
        ("optional.test_deepspeed",),
    ),
    (
        "Weights & Biases, MLflow, Comet, Neptune, ClearML: plain loop, Lightning, Trainer",
        ("optional.test_trackers",),
    ),
    (
        "GPT-2, Llama, BERT, ViT, ResNet, ConvNeXt, EfficientNet, U-Net, `nn.Transformer`",
        ("test_real_models",),
    ),
    ("Bit-identical training over the whole zoo and four networks", ("test_do_no_harm",)),
)
"""A case, and the test modules (below ``tests.``) that prove it."""

DEVICES = HERE / "gpu_tests.json"
"""Results of ``tests/capture/test_cuda.py`` on machines with a GPU: device, torch, counts."""

NOT_RUN = (
    "Lightning's `FSDPStrategy` was not run: on a CPU it raises `ValueError: The strategy fsdp "
    "requires a GPU accelerator`; the FSDP that it wraps was. Of the older FSDP with original "
    "parameters the shapes shown are those of a rank's part. Of hybrid sharding only the merging "
    "of the parts is tested, not a run. A cluster of several machines was "
    "not run. Composer was not: no release of it installs and imports beside this "
    "torch. Trackers were run offline, "
    "MLflow 3.17 in a database, Comet, Neptune 1.14, ClearML 2.1 and Weights & Biases in their "
    "offline modes: what their servers show was not looked at. Not run were Comet in Lightning, "
    "whose logger keeps nothing offline; Neptune in Lightning, which has no logger for it any "
    "more, and in the Trainer, whose callback needs the server; ClearML in Lightning, which has "
    "no logger for it. timm's own models were not run beside the "
    "CPU build of torch, which has no torchvision."
)


def run_tests(report: Path) -> None:
    """Run the tests of all rows and leave a JUnit file."""
    names = sorted({name for _, modules in ROWS for name in modules})
    files = [str(HERE.parent / "tests" / f"{name.replace('.', '/')}.py") for name in names]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *files], check=False
    )


def count_results(reports: Sequence[Path]) -> dict[str, Counter[str]]:
    """Passed, failed and skipped tests by module."""
    outcomes: dict[tuple[str, str], str] = {}
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            module = case.get("classname", "").removeprefix("tests.")
            test = module, case.get("name", "")
            outcomes[test] = max(outcomes.get(test, ""), find_outcome(case), key=OUTCOMES.index)
    results: dict[str, Counter[str]] = {}
    for (module, _), outcome in outcomes.items():
        for row in {name for _, modules in ROWS for name in modules}:
            if module == row or module.startswith(f"{row}."):
                results.setdefault(row, Counter())[outcome] += 1
    return results


OUTCOMES = ("", "skipped", "passed", "failed")
"""Of a test in several environments the last of these counts."""


def find_outcome(case: ElementTree.Element) -> str:
    """How a test went in one environment."""
    found = {child.tag for child in case}
    if found & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in found else "passed"


def read_page() -> dict[str, str]:
    """By case, the result that the page shows."""
    rows = (line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines())
    return {row[0].removeprefix("| "): row[-1].removesuffix(" |") for row in rows if len(row) == 3}


def describe(counts: Counter[str]) -> str:
    """One cell of the table."""
    if not counts:
        return "not run"
    if not counts["passed"] and not counts["failed"]:
        return f"not run here: {counts['skipped']} skipped"
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()) if number)


def write_page(reports: Sequence[Path]) -> None:
    """The page from JUnit files."""
    results, before = count_results(reports), read_page()
    version = torch.__version__.split("+")[0]
    lines = [
        "# Any PyTorch model",
        "",
        f"Written by `python docs/compatibility.py` with torch {version} on",
        f"Python {platform.python_version()}, CPU. Each case must work, be measured right against",
        "an oracle, and leave the training bit-identical.",
        "",
        "| Case | Tests | Result |",
        "| --- | --- | --- |",
    ]
    for case, modules in ROWS:
        counts = sum((results.get(name, Counter()) for name in modules), Counter())
        files = ", ".join(f"`tests/{name.replace('.', '/')}.py`" for name in modules)
        result = describe(counts) if counts else before.get(case, describe(counts))
        lines.append(f"| {case} | {files} | {result} |")
    PAGE.write_text("\n".join([*lines, "", *list_devices(), NOT_RUN, ""]), encoding="utf-8")


def list_devices() -> list[str]:
    """What was run elsewhere, with the device's name."""
    if not DEVICES.exists():
        return []
    return [
        f"The tests for CUDA were run on {device['device']} with torch {device['torch']}: "
        f"{describe(Counter(device['counts']))}.\n"
        for device in json.loads(DEVICES.read_text(encoding="utf-8"))
    ]


def main() -> None:
    """Run the tests unless a report is given, then write."""
    if len(sys.argv) > 1:
        write_page([Path(name) for name in sys.argv[1:]])
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        run_tests(report)
        write_page([report])


if __name__ == "__main__":
    main()
