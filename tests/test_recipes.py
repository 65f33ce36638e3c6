"""The recipes for CI servers: linted, and what they run is run here, before and after a change."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from gradwatch.cli import build_parser
from gradwatch.cli.arguments import join_kinds
from gradwatch.configuration import find_configuration

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "examples" / "ci"
LINTED = [
    ("vendor.github-actions", ROOT / "action.yml"),
    ("vendor.github-workflows", SAMPLE / ".github/workflows/gradients.yml"),
    ("vendor.gitlab-ci", SAMPLE / ".gitlab-ci.yml"),
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample before and after its change, each trained once."""
    root = tmp_path_factory.mktemp("sample")
    for name in ("before", "after"):
        shutil.copytree(SAMPLE, root / name)
    patch = ["git", "apply", "--unsafe-paths", "vanish.patch"]
    subprocess.run(patch, cwd=root / "after", check=True, env={**os.environ, "GIT_DIR": "none"})
    for name in ("before", "after"):
        run([sys.executable, "train.py"], root / name, check=True)
    return root


def run(command: list[str], folder: Path, check: bool = False, **surroundings: str):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **surroundings}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=check
    )


def leave_words(text: str) -> set[str]:
    """The words of a text: numbers, and which layers are below a threshold, differ by machine."""
    return {word.strip("0123456789") for word in re.findall(r"[\w]+", text)} - {"e", ""}


class TestAction:
    def run_steps(self, folder: Path, **inputs: str) -> tuple[int, str, Path]:
        """Every step with a script, in order; answers the last one's status, output, summary."""
        action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
        defaults = {key: row.get("default", "") for key, row in action["inputs"].items()}
        known = {**defaults, "python": sys.executable, **inputs}
        files = {name: folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("", encoding="utf-8")
        paths = {"GITHUB_ACTION_PATH": str(ROOT), **{k: str(v) for k, v in files.items()}}
        output, status = "", 0
        for step in action["runs"]["steps"]:
            if "run" not in step or step["name"].startswith("Install"):
                continue
            result = files["GITHUB_OUTPUT"].read_text(encoding="utf-8").strip()
            given = {k: self._fill(v, known, result) for k, v in step["env"].items()}
            script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
            done = run(script, folder, **paths, **given)
            output, status = output + done.stdout + done.stderr, done.returncode
        return status, output, files["GITHUB_STEP_SUMMARY"]

    def _fill(self, text: str, inputs: dict[str, str], result: str) -> str:
        text = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: inputs[match[1]], text)
        return text.replace("${{ steps.check.outputs.status }}", result.removeprefix("status="))

    def test_green_before_the_change(self, repository: Path) -> None:
        status, output, summary = self.run_steps(repository / "before", logdir="runs/smoke")
        assert status == 0, output
        assert "::error" not in output
        assert "✅" in summary.read_text(encoding="utf-8")

    def test_red_after_it_with_all_files(self, repository: Path) -> None:
        folder = repository / "after"
        status, output, summary = self.run_steps(folder, logdir="runs/smoke")
        assert status == 1
        title = "title=Vanishing gradient (GW101) in smoke"
        assert re.match(rf"::error file=train.py,line=\d+,{re.escape(title)}::", output)
        assert "❌" in summary.read_text(encoding="utf-8")
        report = folder / "gradwatch-report"
        sarif = json.loads((report / "gradwatch.sarif").read_text(encoding="utf-8"))
        assert sarif["runs"][0]["results"][0]["ruleId"] == "GW101"
        failures = ElementTree.parse(report / "gradwatch.xml").getroot().get("failures")
        assert failures == "1"
        assert json.loads((report / "gradwatch.json").read_text(encoding="utf-8"))["status"] == 1
        assert "<html" in (report / "report.html").read_text(encoding="utf-8")

    def test_what_the_docs_show_is_what_it_writes(self, repository: Path) -> None:
        folder = repository / "after"
        _, output, summary = self.run_steps(folder, logdir="runs/smoke")
        report = folder / "gradwatch-report"
        sarif = json.loads((report / "gradwatch.sarif").read_text(encoding="utf-8"))
        written = {
            "annotations.txt": "\n".join(output.splitlines()[:2]),
            "summary.md": summary.read_text(encoding="utf-8"),
            "gradwatch.xml": (report / "gradwatch.xml").read_text(encoding="utf-8"),
        }
        for name, text in written.items():
            shown = (SAMPLE / "output" / name).read_text(encoding="utf-8")
            assert leave_words(shown) == leave_words(text), name
        (shown,) = json.loads((SAMPLE / "output/sarif-results.json").read_text(encoding="utf-8"))
        (result,) = sarif["runs"][0]["results"]
        assert leave_words(shown["message"]["text"]) == leave_words(result["message"]["text"])
        assert set(shown) == set(result)

    def test_inputs(self, repository: Path) -> None:
        folder = repository / "after"
        known = run(
            [sys.executable, "-m", "gradwatch", "baseline", "runs/smoke", "-o", "known.json"],
            folder,
        )
        assert known.returncode == 0, known.stderr
        for inputs in ({"baseline": "known.json"}, {"fail-on": "dead,exploding"}):
            assert self.run_steps(folder, logdir="runs/smoke", **inputs)[0] == 0

    def test_no_log_is_no_pass(self, repository: Path) -> None:
        folder = repository / "before"
        (folder / "gradwatch-report").mkdir(exist_ok=True)
        page = folder / "gradwatch-report" / "report.html"
        page.write_text("of the job before", encoding="utf-8")
        status, output, summary = self.run_steps(folder, logdir="runs/nowhere")
        assert status == 2
        assert "::error title=gradwatch%3A not judged::runs/nowhere: " in output
        assert "does not exist" in summary.read_text(encoding="utf-8")
        assert not page.exists()

    def test_what_was_not_judged_mends_no_alert_of_code_scanning(self) -> None:
        action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
        (upload,) = (step for step in action["runs"]["steps"] if "sarif" in step.get("uses", ""))
        assert "steps.check.outputs.status != '2'" in upload["if"]

    def test_a_python_without_gradwatch_is_no_finding(self, repository: Path) -> None:
        folder = repository / "before"
        status, output, _ = self.run_steps(folder, logdir="runs/smoke", python="false")
        assert status == 2
        assert "false cannot run gradwatch" in output


def test_the_samples_test_is_red_exactly_after_the_change(repository: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gradwatch"]
    before = run(command, repository / "before")
    assert before.returncode == 0, before.stdout
    after = run([*command, "--gradwatch-report", "pages"], repository / "after")
    assert after.returncode == 1, after.stdout
    assert "Unhealthy with 3 of 3 seeds" in after.stdout
    assert len(list((repository / "after" / "pages").iterdir())) == 1


def test_compare_names_the_change(repository: Path) -> None:
    command = [sys.executable, "-m", "gradwatch", "compare"]
    assert run([*command, "before/runs", "before/runs"], repository).returncode == 0
    worse = run([*command, "before/runs", "after/runs"], repository)
    assert worse.returncode == 1
    assert "fc1" in worse.stdout


@pytest.mark.skipif(util.find_spec("check_jsonschema") is None, reason="needs check-jsonschema")
@pytest.mark.parametrize(("schema", "path"), LINTED, ids=[path.name for _, path in LINTED])
def test_recipes_are_valid(schema: str, path: Path) -> None:
    command = ["-m", "check_jsonschema", "--builtin-schema", schema]
    if schema == "vendor.gitlab-ci":
        command += ["--data-transform", "gitlab-ci"]
    done = run([sys.executable, *command, str(path)], ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hook_of_pre_commit() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {"id", "name", "entry", "language"} <= set(hook)
    (repo,) = yaml.safe_load((SAMPLE / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert [row["id"] for row in repo["hooks"]] == [hook["id"]]


@pytest.mark.parametrize(
    "name", ["action.yml", "examples/ci/.gitlab-ci.yml", "examples/ci/Jenkinsfile", "docs/ci.md"]
)
def test_commands_in_the_recipes_are_commands(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"gradwatch ((?:check|report|baseline|compare) [^|#`\n]+)", text)
    found = [command.partition("2>")[0] for command in found]
    # An odd quotation mark closes one that stands before the command.
    found = [command.rstrip("'") if command.count("'") % 2 else command for command in found]
    assert found
    for line in found:
        words = shlex.split(line.replace('"${options[@]}"', "").replace("$1", "sarif"))
        build_parser().parse_args(join_kinds(words))


def test_the_samples_settings_mean_something() -> None:
    assert find_configuration(SAMPLE).path == SAMPLE / "pyproject.toml"
    assert find_configuration(SAMPLE).steps == 30
