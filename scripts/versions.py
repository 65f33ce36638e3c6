"""Run the tests on the oldest and newest versions that pyproject.toml promises, and in between.

``python scripts/versions.py [--hollow] [--folder DIR] [NAME ...]`` makes one environment for each
combination, installs, runs the tests and writes docs/versions.md. Named combinations only are run
again; the others keep their results. A combination that cannot be installed is reported with pip's
reason, never as passed. Pythons are looked for as ``python3.X`` on PATH and in the folders that the
variable ``PYTHONS`` lists. ``--hollow`` saves two gigabytes each: see scripts/hollow_cuda.py.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

import tomllib
from hollow_cuda import hollow_out

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "versions.json"
PAGE = ROOT / "docs" / "versions.md"

SUITE = ("tests",)
READING = (
    *(
        "tests/evidence",
        "tests/verdict",
        "tests/wording",
        "tests/log",
        "tests/display",
        "tests/pages",
        "tests/remedies",
        "tests/test_cli.py",
    ),
    *("tests/test_docs.py", "tests/test_imports.py", "tests/test_packaging.py"),
)
"""Where the tests are that need no torch; what needs it in there is skipped and counted."""
LIGHTNING = ("tests/test_lightning.py", "tests/display/test_eventlog.py")

TOOLS = ("hypothesis", "import-linter", "pytest", "pytest-cov")
REPORTED = ("torch", "lightning", "pytorch-lightning", "numpy", "tensorboard", "rich", "plotly")
ALL = ("lightning", "plots", "demo", "transformers")


@dataclass(frozen=True)
class Combination:
    """One environment.

    Attributes:
        python: version, as in ``python3.10``.
        torch: version; empty for an environment without it, None for the newest.
        packages: what else is installed; ``<bounds>`` stands for everything at its lower bound,
            ``<newest>`` for everything without a bound.
        tests: files and folders.
    """

    python: str
    torch: str | None
    packages: tuple[str, ...]
    tests: tuple[str, ...] = SUITE


_SETUP = "setuptools<81"
"""Lightning before 2.5 and tensorboard before 2.20 import pkg_resources, which later ones lack."""
_PINNED = ("-c", "constraints.txt", "<newest>")
_READ = ("numpy", "rich", "tensorboard", "plotly", *TOOLS)

COMBINATIONS: dict[str, Combination] = {
    "oldest of everything": Combination("3.10", "<bound>", ("<bounds>", _SETUP)),
    "oldest torch, newest rest": Combination("3.12", "<bound>", ("<newest>",)),
    "newest of everything": Combination("3.13", None, ("<newest>",)),
    "pinned, Python 3.12": Combination("3.12", "2.13.0", _PINNED),
    "oldest Lightning": Combination(
        "3.11", "2.13.0", ("<lightning>", "tensorboard", "numpy", "rich", _SETUP, *TOOLS), LIGHTNING
    ),
    "pytorch_lightning alone": Combination(
        "3.11",
        "2.13.0",
        ("<pytorch-lightning>", "tensorboard", "numpy", "rich", _SETUP, *TOOLS),
        LIGHTNING,
    ),
    "reading, Python 3.10": Combination("3.10", "", _READ, READING),
    "reading, Python 3.12": Combination("3.12", "", _READ, READING),
    "reading, Python 3.13": Combination("3.13", "", _READ, READING),
}


@dataclass
class Outcome:
    """What came of one combination."""

    python: str
    versions: dict[str, str]
    tests: str
    counts: dict[str, int]
    failed: list[str]
    reason: str = ""


def read_bounds() -> dict[str, str]:
    """The lower bound of every package that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name in (*ALL, "test") for line in extras[name])]
    pairs = (line.partition(">=")[::2] for line in lines if ">=" in line)
    return {name.strip(): version.strip() for name, version in pairs}


def list_packages(combination: Combination) -> list[str]:
    """Arguments for pip, beside torch."""
    bounds = read_bounds()
    skipped = {"torch", "mypy", "playwright", "ruff"}  # what no test outside the browser's needs
    named = [name for name in bounds if name not in skipped]
    stands = {
        "<bounds>": [f"{name}=={bounds[name]}" for name in named],
        "<newest>": named,
        "<lightning>": [f"lightning=={bounds['lightning']}"],
        "<pytorch-lightning>": [f"pytorch-lightning=={bounds['lightning']}"],
    }
    return [
        argument for package in combination.packages for argument in stands.get(package, [package])
    ]


def find_python(version: str) -> str | None:
    """An interpreter of this version that runs."""
    folders = os.environ.get("PYTHONS", "").split(os.pathsep)
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    found = shutil.which(f"python{version}", path=path)
    if found is None or subprocess.run([found, "-V"], capture_output=True).returncode:
        return None
    return found


class NotInstallable(Exception):
    """pip's reason."""


def install(python: Path, *arguments: str) -> None:
    """Run pip; raise with its last words."""
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise NotInstallable((errors or done.stderr.splitlines() or ["unknown"])[-1][:200])


def prepare(combination: Combination, folder: Path, hollow: bool) -> Path:
    """Make the environment, or use the one that is there; answers its interpreter."""
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    base = find_python(combination.python)
    if base is None:
        raise NotInstallable(f"no python{combination.python} on this machine")
    subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
    version = read_bounds()["torch"] if combination.torch == "<bound>" else combination.torch
    wanted = "torch" if version is None else f"torch=={version}"
    if version != "":
        install(python, "--no-deps", wanted) if hollow else install(python, wanted)
        site = next((folder / "lib").glob("python*/site-packages"))
        if hollow:
            hollow_out(site)
        metadata = next(site.glob("torch-*.dist-info")).name
        wanted = f"torch=={metadata.removeprefix('torch-').removesuffix('.dist-info')}"
    install(python, *([wanted] if version != "" else []), *list_packages(combination))
    install(python, "--no-deps", "-e", ".")
    (folder / "ready").touch()
    return python


def read_versions(python: Path) -> dict[str, str]:
    """What pip says is installed."""
    command = [str(python), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    found = {package["name"].lower(): package["version"] for package in listed}
    return {name: found[name].split("+")[0] for name in REPORTED if name in found}


def run_tests(python: Path, paths: list[Path]) -> tuple[dict[str, int], list[str]]:
    """Run each file in a process of its own; answers counts and the names of what failed."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            report = Path(folder) / "junit.xml"
            report.unlink(missing_ok=True)
            options = ["-q", "-p", "no:cacheprovider", "-m", "not browser", f"--junitxml={report}"]
            command = [str(python), "-m", "pytest", *options, str(path)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            print(path.relative_to(ROOT), (done.stdout.splitlines() or ["no output"])[-1])
            if not report.exists():
                counts["failed"] += 1
                failed.append(f"{path.relative_to(ROOT)} (no result)")
                continue
            for case in ElementTree.parse(report).iter("testcase"):
                tags = {child.tag for child in case}
                outcome = "failed" if tags & {"failure", "error"} else "passed"
                outcome = "skipped" if "skipped" in tags else outcome
                counts[outcome] += 1
                if outcome == "failed":
                    failed.append(f"{case.get('classname')}::{case.get('name')}")
    return counts, failed


def list_files(tests: tuple[str, ...], limited: str, without: list[str]) -> list[Path]:
    """Test files, those only whose path a pattern is found in, and not those left out."""
    files: list[Path] = []
    for test in tests:
        path = ROOT / test
        files += [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    return [
        file
        for file in files
        if re.search(limited, str(file.relative_to(ROOT))) and file.stem not in without
    ]


def try_combination(
    name: str, folder: Path, hollow: bool, limited: str, without: list[str]
) -> Outcome:
    """Install and test one combination."""
    combination = COMBINATIONS[name]
    tests = ", ".join(combination.tests) + (f" matching `{limited}`" if limited else "")
    tests += f" without {', '.join(without)}" if without else ""
    try:
        python = prepare(combination, folder / re.sub(r"\W+", "-", name), hollow)
    except NotInstallable as error:
        return Outcome(combination.python, {}, tests, {}, [], str(error))
    counts, failed = run_tests(python, list_files(combination.tests, limited, without))
    said = subprocess.run([str(python), "-V"], capture_output=True, text=True, check=True).stdout
    return Outcome(said.split()[1], read_versions(python), tests, counts, failed)


def describe(outcome: Outcome) -> str:
    """One cell: counts, or why there are none."""
    if outcome.reason:
        return f"not installable here: {outcome.reason}"
    return ", ".join(f"{count} {name}" for name, count in outcome.counts.items() if count)


def write_page(results: dict[str, Outcome]) -> None:
    """The table, and what failed."""
    lines = [
        "# Versions",
        "",
        "Written by `python scripts/versions.py`. The oldest of everything is every lower bound in",
        "`pyproject.toml`; `.ci/run` covers the pinned versions on its own Python. Tests that",
        "need a browser run there only. torch comes from the package index, without the CUDA",
        "libraries that a machine without a GPU never calls (`scripts/hollow_cuda.py`).",
        "transformers 5.23 asks torch 2.15 for a CUDA stream all the same and crashes there, with",
        "or without a watch: a file with no result.",
        "",
        "| Combination | Python | Packages | Tests | Result |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in COMBINATIONS:
        outcome = results.get(name)
        if outcome is None:
            lines.append(f"| {name} | {COMBINATIONS[name].python} | | | not run |")
            continue
        packages = ", ".join(f"{key} {value}" for key, value in outcome.versions.items())
        tests = outcome.tests.replace("|", "\\|")  # a bar would end the cell
        cells = name, outcome.python, packages, tests, describe(outcome)
        lines.append(f"| {' | '.join(cells)} |")
    for name, outcome in results.items():
        if outcome.failed:
            lines += ["", f"Failed with {name}:", ""]
            lines += [f"- `{test}`" for test in outcome.failed]
    PAGE.write_text("\n".join([*lines, ""]), encoding="utf-8")


def main() -> None:
    """Run what is asked for, and write after each so that nothing is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *COMBINATIONS], default=[])
    parser.add_argument("--hollow", action="store_true")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-versions")
    parser.add_argument("--matching", default="", help="only test files whose path has this")
    parser.add_argument("--without", nargs="*", default=[], help="test files to leave out")
    given = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {name: Outcome(**known[name]) for name in COMBINATIONS if name in known}
    for name in given.names or COMBINATIONS:
        print(f"== {name}", flush=True)
        results[name] = try_combination(
            name, given.folder, given.hollow, given.matching, given.without
        )
        print(describe(results[name]), flush=True)
        ordered = {label: results[label] for label in COMBINATIONS if label in results}
        RESULTS.write_text(
            json.dumps({key: asdict(value) for key, value in ordered.items()}, indent=1) + "\n"
        )
        write_page(ordered)
    sys.exit(any(result.counts.get("failed") for result in results.values()))


if __name__ == "__main__":
    main()
