"""The compiled package, built once for the tests that read with it."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradwatch.capture import native

SOURCE = Path(__file__).parents[2] / "native"


def _build(folder: Path) -> None:
    shutil.copytree(SOURCE, folder / "source")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(folder / "built")]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True, text=True)
    shutil.copy(SOURCE / "gradwatch_native" / "__init__.py", folder / "built" / "gradwatch_native")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """As an installation of ``native/`` provides it."""
    if shutil.which("cc") is None:
        if os.environ.get("GRADWATCH_REQUIRE_COMPILER"):
            pytest.fail("expected a C compiler named cc, found none: install one")
        pytest.skip("needs a C compiler named cc")
    folder = tmp_path_factory.mktemp("native")
    _build(folder)
    sys.path.insert(0, str(folder / "built"))
    try:
        yield importlib.import_module("gradwatch_native")
    finally:
        sys.path.remove(str(folder / "built"))


@pytest.fixture
def installed(package: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """gradwatch reads with it."""
    monkeypatch.setattr(native, "PACKAGE", package)
    return package
