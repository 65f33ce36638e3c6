"""Log directories behind an address, written and read through fsspec."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gradwatch
from gradwatch.cli import main
from gradwatch.errors import InvalidInput, NothingToJudge
from gradwatch.judgement import judge_latest
from gradwatch.log import remote
from gradwatch.log.writer import read_runs
from tests.networks import make_mlp, make_unhealthy_mlp

fsspec = pytest.importorskip("fsspec")

URL = "memory://bucket/runs/first"


@pytest.fixture
def bucket() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


@pytest.fixture
def fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies are made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_what_is_written_is_read_again(bucket: Any, fresh_folder: Path) -> None:
    network = make_unhealthy_mlp()
    with gradwatch.watch(network.model, network.optimizer, logdir=URL) as watch:
        network.train(8)
    assert not list(fresh_folder.glob("gradwatch-*"))
    report = watch.report()
    assert report.logdir == URL
    (run,) = read_runs(URL)
    assert [record.global_step for record in run.records()] == [0, 1, 2, 3, 4, 5, 7]
    assert (run.label, run.end.how) == ("first", "detached")
    outcome = judge_latest(URL)
    assert outcome.verdict.findings == report.findings


def test_the_command_line_reads_it(
    bucket: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = make_mlp()
    with gradwatch.watch(network.model, network.optimizer, logdir=URL):
        network.train(8)
    assert main(["check", "memory://bucket/runs", "--format", "json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["run"] == "first"
    page = tmp_path / "page.html"
    assert main(["report", URL, "--output", str(page)]) == 0
    assert "first" in page.read_text(encoding="utf-8")


def test_a_running_training_is_copied_from_time_to_time(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "UPLOAD_SECONDS", 0.0)
    network = make_mlp()
    with gradwatch.watch(network.model, network.optimizer, logdir=URL) as watch:
        network.train(3)
        watch._judgement._journal._log._file._upload.join()
        (path,) = bucket.find("/bucket")
        assert bucket.size(path) > 0
        (run,) = read_runs(URL)
        assert run.header is not None
        assert run.end is None


def test_a_network_that_fails_loses_nothing_and_stops_nothing(
    bucket: Any, fresh_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_mlp()
    watch = gradwatch.watch(network.model, network.optimizer, logdir=URL)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(type(bucket), "put_file", fail)
    network.train(3)
    with pytest.warns(RuntimeWarning, match="no route to host"):
        watch.detach()
    (path,) = fresh_folder.rglob("*tfevents*")
    (run,) = read_runs(path)
    assert len(run) == watch.report().records == 3


def test_without_fsspec_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    network = make_mlp()
    with pytest.raises(InvalidInput, match=r"gradwatch\[remote\]"):
        gradwatch.watch(network.model, network.optimizer, logdir=URL)
    with pytest.raises(InvalidInput, match=r"gradwatch\[remote\]"):
        read_runs(URL)


def test_an_address_that_nothing_reads_is_refused() -> None:
    with pytest.raises(InvalidInput, match="that fsspec can open"):
        read_runs("nowhere://bucket")


def test_no_event_file_is_nothing_to_judge(bucket: Any) -> None:
    with pytest.raises(NothingToJudge, match="Expected event files"):
        read_runs("memory://bucket/empty")


def test_a_key_that_leads_out_is_left_out(tmp_path: Path) -> None:
    remote._fetch_file(None, "bucket/../events", tmp_path / "inside", ("..", "events"))
    assert not list(tmp_path.iterdir())
