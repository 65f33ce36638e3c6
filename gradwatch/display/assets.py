"""The files that a browser loads, in the tab or in a report: our own, and plotly.js."""

from __future__ import annotations

import gzip
from functools import cache, lru_cache
from importlib import util
from pathlib import Path

MODULES = (
    "index.js",
    "dom.js",
    "words.js",
    "source.js",
    "host.js",
    "address.js",
    "arrays.js",
    "rules.js",
    "banner.js",
    "tables.js",
    "layout.js",
    "frame.js",
    "charts.js",
    "lines.js",
    "units.js",
    "cards.js",
    "pane.js",
    "parting.js",
    "compare.js",
    "page.js",
)
"""Our ES modules, in an order in which each comes after those that it imports, index.js apart."""

STYLE = "style.css"
_HERE = Path(__file__).parent / "static"


@cache
def read_asset(name: str) -> bytes:
    """One of our own files.

    Args:
        name: in ``MODULES``, or ``STYLE``.

    Raises:
        KeyError: not one of them; no other path is ever opened.
    """
    if name not in MODULES and name != STYLE:
        raise KeyError(name)
    return (_HERE / name).read_bytes()


def find_plotly() -> Path | None:
    """plotly.js of the installed ``plotly`` package, found without importing it."""
    spec = util.find_spec("plotly")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "package_data" / "plotly.min.js"
        if path.is_file():
            return path
    return None


@lru_cache(maxsize=1)
def read_plotly() -> bytes | None:
    """plotly.js, gzipped once per process; ``None`` when plotly is not installed."""
    path = find_plotly()
    return gzip.compress(path.read_bytes(), 6, mtime=0) if path else None
