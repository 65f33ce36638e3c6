"""docs/images/overhead.svg and growth.svg from the figures; matplotlib comes with the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from benchmarks.overhead.tools import TOOLS

IMAGES = Path(__file__).parents[2] / "docs" / "images"

OURS = ("default", "budget", "every_step")

INK, OTHERS = "#0072b2", "#7f7f7f"
"""Ours and the others, distinguished by anyone (Okabe & Ito)."""

matplotlib.rcParams.update({"svg.hashsalt": "gradwatch", "svg.fonttype": "none", "font.size": 9})


def draw_plots(result: Mapping[str, Any], folder: Path = IMAGES) -> None:
    """Write both pictures."""
    for name, figure in (("overhead", _draw_ratios(result)), ("growth", _draw_growth(result))):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
        pyplot.close(figure)


def _draw_ratios(result: Mapping[str, Any]) -> Any:
    workloads = result["workloads"]
    names = list(next(iter(workloads.values()))["ratios"])
    figure, axes = pyplot.subplots(
        1,
        len(workloads),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
        figsize=(10, 1.1 + 0.26 * len(names)),
    )
    for panel, workload in zip(axes[0], workloads.values(), strict=True):
        _draw_workload(panel, names, workload)
    titles = [TOOLS[name].title.replace("*", "").replace("`", "") for name in names]
    axes[0][0].set_yticks(range(len(names)), titles)
    axes[0][0].invert_yaxis()
    figure.supxlabel("time of a step, as a multiple of the bare one (logarithmic)", fontsize=9)
    return figure


def _draw_workload(axes: Axes, names: list[str], workload: Mapping[str, Any]) -> None:
    for row, name in enumerate(names):
        measured = workload["ratios"][name]
        if "ratio" not in measured:
            axes.text(1.02, row, "failed", va="center", color=OTHERS)
            continue
        median, low, high = measured["ratio"]
        colour = INK if name in OURS else OTHERS
        axes.plot([low, high], [row, row], color=colour, alpha=0.5, linewidth=2)
        axes.plot(median, row, "o", color=colour, markersize=5)
    axes.set_title(workload["title"].replace(", ", ",\n", 1), fontsize=9)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, subs=(1.0, 1.5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_growth(result: Mapping[str, Any]) -> Any:
    points = [point for point in result["growth"] if point["width"] == result["growth"][0]["width"]]
    depths = [point["depth"] for point in points]
    figure, axes = pyplot.subplots(figsize=(4.8, 3))
    axes.loglog(
        depths, [point["bare_ms"] for point in points], "o-", color=OTHERS, label="bare step"
    )
    added = [point["sampled_ms"] - point["bare_ms"] for point in points]
    axes.loglog(depths, added, "o-", color=INK, label="added by a sampled step")
    axes.set_xlabel(f"layers of width {points[0]['width']}")
    axes.set_ylabel("milliseconds")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
