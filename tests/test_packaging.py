"""The package as its users meet it: names, files, extras, entry points."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import pytest

import gradwatch

ROOT = Path(__file__).parents[1]
EXTRAS = {
    "remote",
    "all",
    "benchmark",
    "demo",
    "docs",
    "lightning",
    "plots",
    "test",
    "transformers",
}


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found.group().lower()


def _requirements(extra: str | None) -> set[str]:
    """Names of what the base (None) or one extra asks for, one level deep."""
    wanted = f'extra == "{extra}"'
    lines = [line.replace("'", '"') for line in metadata.requires("gradwatch") or ()]
    return {
        _name(line)
        for line in lines
        if (wanted in line if extra is not None else "extra ==" not in line)
    }


@pytest.mark.parametrize("name", gradwatch.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(gradwatch, name) is not None


def test_type_checkers_and_lazy_loading_see_the_same_names() -> None:
    assert {*gradwatch._HOMES, "__version__"} == set(gradwatch.__all__)
    assert set(dir(gradwatch)) == set(gradwatch.__all__)


@pytest.mark.parametrize("file", ["CITATION.cff", "conda/meta.yaml"])
def test_recipes_name_the_version(file: str) -> None:
    assert gradwatch.__version__ in (ROOT / file).read_text(encoding="utf-8")


def test_the_conda_recipe_needs_what_the_package_needs() -> None:
    recipe = (ROOT / "conda/meta.yaml").read_text(encoding="utf-8")
    run = recipe.partition("  run:")[2].partition("\ntest:")[0]
    named = set(re.findall(r"^    - ([\w-]+)", run, flags=re.MULTILINE))
    wanted = _requirements(None) | {"tomli", "python", "pytorch"}
    assert named == wanted - {"torch"}


def test_the_lock_has_the_versions_of_the_constraints() -> None:
    held = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for name in ("numpy", "rich", "tensorboard", "plotly"):
        versions = set(re.findall(rf"^{name}==([\d.]+)", locked, flags=re.MULTILINE))
        assert versions
        assert all(f"\n{name}=={version}" in held for version in versions)
    assert locked.count("--hash=sha256:") > 50


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'wacth'"):
        gradwatch.wacth  # noqa: B018


def test_version_has_one_home() -> None:
    assert metadata.version("gradwatch") == gradwatch.__version__
    assert "version" not in _keys("project")


def test_types_are_shipped() -> None:
    assert files("gradwatch").joinpath("py.typed").is_file()


def test_base_dependencies() -> None:
    assert _requirements(None) == {"torch", "tensorboard", "numpy", "rich", "tomli"}


def test_extras() -> None:
    provided = set(metadata.metadata("gradwatch").get_all("Provides-Extra") or ())
    assert provided == EXTRAS
    assert "transformers" not in _requirements("all")
    assert _requirements("lightning") == {"lightning"}
    assert _requirements("plots") == {"plotly"}
    assert _requirements("demo") == {"scikit-learn"}


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("console_scripts", "gradwatch.cli:main"),
        ("pytest11", "gradwatch.pytest_plugin"),
        ("tensorboard_plugins", "gradwatch.tensorboard_plugin.loader:GradWatchLoader"),
    ],
)
def test_entry_point_loads(group: str, target: str) -> None:
    (point,) = metadata.entry_points(group=group, name="gradwatch")
    assert point.value == target
    assert point.load() is not None


@pytest.mark.parametrize(
    "statement",
    [
        "import gradwatch; gradwatch.UnhealthyGradients",
        "import gradwatch.pytest_plugin",
        "import gradwatch.tensorboard_plugin.loader",
        "import gradwatch.cli",
        "import gradwatch; gradwatch.Report; gradwatch.Thresholds",
    ],
)
def test_reading_side_loads_no_torch(statement: str) -> None:
    _assert_loads_nothing_heavy(statement)


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["check", "nowhere"]])
def test_command_line_loads_no_torch(arguments: list[str], tmp_path: Path) -> None:
    arguments = [str(tmp_path) if word == "nowhere" else word for word in arguments]
    _assert_loads_nothing_heavy(
        "import contextlib, gradwatch.cli\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    gradwatch.cli.main({arguments!r})"
    )


def _assert_loads_nothing_heavy(statement: str) -> None:
    probe = (
        f"{statement}\nimport sys\n"
        "heavy = {'torch', 'lightning', 'transformers', 'plotly'} & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_commands_set_up_all_they_need() -> None:
    demo, test = _readme_commands()
    for command in (demo, test):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
        assert "-c constraints.txt" in command
    assert demo.endswith(".venv/bin/gradwatch demo")
    assert test.endswith(".venv/bin/python -m pytest -n auto")
    assert test in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()


def test_readme_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {_name(line) for line in lines if "==" in line}
    extras = ("all", "demo", "docs", "lightning", "plots", "test", "transformers")
    wanted = set().union(_requirements(None), *(_requirements(extra) for extra in extras))
    assert wanted - {"gradwatch"} <= pins


def _readme_commands() -> tuple[str, str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, flags=re.DOTALL)
    commands = [block.strip() for block in blocks if "venv" in block]
    assert len(commands) == 2, "the README has one command for the demo and one for the tests"
    return commands[0], commands[1]


def _keys(name: str) -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^\[{name}\]\n(.*?)^\[", text, flags=re.DOTALL | re.MULTILINE)
    assert found
    return re.findall(r"^(\w+) =", found.group(1), flags=re.MULTILINE)
