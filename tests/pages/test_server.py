"""The tab's server side, through the real TensorBoard and both of its loaders."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from gradwatch.display.figures import CARDS
from gradwatch.tensorboard_plugin import runs
from gradwatch.tensorboard_plugin.loader import SAMPLES, GradWatchLoader
from tests.pages.conftest import Server, start_server

ROUTE = "data/plugin/gradwatch"


def read_runs(server: Server) -> list[dict[str, Any]]:
    """All briefs, once the background has read every run."""
    deadline = time.monotonic() + 60
    while True:
        answer = json.loads(server.get(f"{ROUTE}/runs"))
        briefs: list[dict[str, Any]] = answer["runs"]
        if answer["settled"] and briefs and all(brief.get("records") == 60 for brief in briefs):
            return briefs
        assert time.monotonic() < deadline, f"not read within 60 s: {answer}"
        time.sleep(0.3)


def test_lists_only_runs_with_our_records(server: Server) -> None:
    assert [run["run"] for run in read_runs(server)] == ["healthy", "hostile", "sigmoid"]


def test_says_who_is_unhealthy_and_why(server: Server) -> None:
    by_name = {run["run"]: run for run in read_runs(server)}
    finding = by_name["sigmoid"]["findings"][0]
    assert by_name["healthy"]["healthy"]
    assert not by_name["healthy"]["findings"]
    assert (finding["kind"], finding["first_step"]) == ("vanishing", 0)
    said = "".join(text for text, *_ in by_name["sigmoid"]["headline"])
    assert said.startswith("fc1 gets ")
    assert said.endswith(" times less gradient than fc12")


def test_tab_carries_the_number_of_unhealthy_runs(server: Server) -> None:
    read_runs(server)
    listing = json.loads(server.get("data/plugins_listing"))["gradwatch"]
    assert listing["enabled"]
    assert listing["tab_name"] == "GradWatch (2)"


def test_figures_hold_every_layer_and_step(server: Server) -> None:
    read_runs(server)
    answer = json.loads(server.get(f"{ROUTE}/figures?run=sigmoid"))
    heatmap = answer["figures"]["profile"]["data"][0]
    assert heatmap["z"]["shape"] == "12, 60"
    assert answer["figures"]["units"]["layout"]["meta"]["names"][0] == "fc1:sigmoid"
    assert answer["figures"]["saturated"] is None
    cards = {card["name"]: card for card in answer["cards"]}
    assert list(cards) == [card.name for card in CARDS]
    assert cards["saturated"]["empty"].startswith("Hardly any: at most ")
    assert [name for name, card in cards.items() if card["empty"]] == ["saturated", "dead"]
    assert len(answer["layers"]) == 23


@pytest.mark.parametrize("run", ["sigmoid", "healthy"])
def test_trials_of_remedies_come_with_their_run(server: Server, run: str) -> None:
    tried = {row["run"]: row["trials"] for row in read_runs(server)}[run]
    names = [row["name"] for row in tried["rows"]] if tried else []
    assert names == (["GELU + He", "as it is"] if run == "sigmoid" else [])


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("?run=" + "x" * 5000, 400),
        ("?run=missing", 404),
        ("?run=../../../etc/passwd", 404),
        ("?run=foreign", 404),
    ],
)
def test_refuses_what_is_no_run(server: Server, query: str, status: int) -> None:
    code, body = server.ask(f"{ROUTE}/figures{query}")
    assert code == status
    assert json.loads(body)["error"]


@pytest.mark.parametrize(
    "path", ["..%2fplugin.py", "assets.py", "../../../setup.cfg", "page.js.map"]
)
def test_serves_no_other_file(server: Server, path: str) -> None:
    assert server.ask(f"{ROUTE}/{path}")[0] in (400, 404)


def test_serves_plotly_of_the_installed_package(server: Server) -> None:
    pytest.importorskip("plotly")
    assert b"plotly.js" in server.get(f"{ROUTE}/plotly.min.js")[:300]


@pytest.mark.parametrize("loader", ["true", "false"])
def test_empty_logdir_is_no_error(tmp_path: Path, loader: str) -> None:
    for server in start_server(tmp_path, f"--load_fast={loader}"):
        answer = json.loads(server.get(f"{ROUTE}/runs"))
        listing = json.loads(server.get("data/plugins_listing"))["gradwatch"]
        assert answer["runs"] == []
        assert listing["tab_name"] == "GradWatch"
        assert not listing["enabled"]


def test_asks_for_samples_unless_the_caller_does() -> None:
    unset, given = (
        SimpleNamespace(samples_per_plugin={}),
        SimpleNamespace(samples_per_plugin={"gradwatch": 7}),
    )
    for flags in (unset, given):
        GradWatchLoader().fix_flags(flags)  # type: ignore[arg-type]
    assert unset.samples_per_plugin == {"gradwatch": SAMPLES}
    assert given.samples_per_plugin == {"gradwatch": 7}


def test_broken_plugin_leaves_tensorboard_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradwatch.tensorboard_plugin.plugin", None)
    assert GradWatchLoader().load(SimpleNamespace()) is None


def test_run_that_cannot_be_judged_does_not_take_the_others_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: object, name: str, tags: object) -> None:
        raise RuntimeError("judged by no one")

    monkeypatch.setattr(runs.RunReader, "_read_tensors", fail)
    run = runs.WatchedRun("sigmoid")
    runs.RunReader(SimpleNamespace()).read(run, {})
    assert run.brief["severity"] == "error"
    assert "judged by no one" in run.brief["error"]


def test_run_that_is_still_being_loaded_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.RunReader, "_read_tensors", lambda *_: {})
    monkeypatch.setattr(runs, "read_beginnings", lambda *_: {})
    run = runs.WatchedRun("sigmoid")
    tags = {"gradwatch/record/00": SimpleNamespace(max_step=1, max_wall_time=1.0)}
    runs.RunReader(SimpleNamespace()).read(run, tags)
    assert run.brief["severity"] == "empty"
    assert run.signature != runs.sign(tags)


def test_damaged_trials_do_not_hide_the_run(caplog: pytest.LogCaptureFixture) -> None:
    class Datum(NamedTuple):
        wall_time: float
        numpy: np.ndarray

    written = [Datum(1.0, np.array([b"junk"], dtype=object))]
    assert runs._unpack_latest(written) == ()
    assert "trials" in caplog.text


def test_server_side_loads_no_torch() -> None:
    code = (
        "import sys, gradwatch.tensorboard_plugin.loader, gradwatch.tensorboard_plugin.plugin\n"
        "import gradwatch.display.html\n"
        "sys.exit('torch' in sys.modules or 'plotly' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
