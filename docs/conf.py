"""Sphinx settings. ``sphinx-build -W -b html docs docs/_build/html`` treats warnings as errors."""

from __future__ import annotations

from typing import Any

import gradwatch

project = "gradwatch"
author = "The gradwatch authors"
project_copyright = "2026, the gradwatch authors"
version = release = gradwatch.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
default_role = "code"
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"gradwatch {version}"
html_show_sphinx = False


def _keep_norms(_app: Any, _what: str, _name: str, _obj: Any, _opts: Any, lines: list[str]) -> None:
    """A norm in a docstring, ``||g||``, is no substitution of reStructuredText."""
    lines[:] = [line if "``" in line else line.replace("|", r"\|") for line in lines]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _keep_norms, priority=400)
