"""Start, end and gap: what a log says of itself, and what ``check`` makes of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.cli import main
from gradwatch.errors import UnreadableLog
from gradwatch.judgement import Judgement, judge_logdir
from gradwatch.log.limits import count_allowed_records
from gradwatch.log.reader import read_runs
from gradwatch.log.resume import Entry
from gradwatch.log.writer import EventLog
from gradwatch.run_marks import (
    OptimizerSettings,
    RunDescription,
    RunEnd,
    RunGap,
    RunHeader,
    pack_mark,
    unpack_end,
    unpack_gap,
    unpack_header,
)
from gradwatch.thresholds import Thresholds
from tests.display.samples import make_layer_set, make_record


def make_net(depth: int = 1, act: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(8, 8), act())]
    return nn.Sequential(*hidden, nn.Linear(8, 2))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 8) -> None:
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - x[:, :2]).square().mean().backward()
        optimizer.step()


def watch_and_train(logdir: Path, steps: int = 8, **options) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gradwatch.watch(model, optimizer, logdir=logdir, **options):
        train(model, optimizer, steps)


def write_session(logdir, steps, end: bool = True, value: float = 1.0) -> EventLog:
    log = EventLog(logdir)
    log.begin(Thresholds(), RunDescription())
    for step in steps:
        log.write_record(make_record(step, value=value))
    if end:
        log.end("detached", "", 9)
        log.close()
    return log


class TestMarks:
    def test_each_comes_back(self) -> None:
        optimizers = (OptimizerSettings("AdamW", (1e-3, float("inf")), (0.01, 0.0)),)
        about = RunDescription("Net", 10, 8, "ab", optimizers, ("float32",), ("cpu",), 2)
        header = RunHeader("0a1b2c3d", 5.0, "3.12", Thresholds(profile=0.5), about, 3, ("x",), True)
        assert unpack_header(pack_mark(header)) == header
        for read, mark in (
            (unpack_end, RunEnd("a", "exception", "ValueError", 7, 9)),
            (unpack_gap, RunGap("a", 2, 5, "full")),
        ):
            assert read(pack_mark(mark)) == mark

    def test_fields_and_thresholds_of_another_version(self) -> None:
        text = b'{"session":"a","newer":[1],"thresholds":{"profile":0.5,"newer":1}}'
        assert unpack_header(text) == RunHeader("a", thresholds=Thresholds(profile=0.5))

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"[]",
            b"null",
            b"{}",
            b'{"session":3}',
            b'{"session":"a","thresholds":{"profile":-1}}',
            b'{"session":"a","thresholds":{"profile":NaN}}',
            b'{"session":"a","thresholds":{"ignore_kinds":"all"}}',
            b'{"session":"a","started_at":1e999}',
            b'{"session":"a","files_before":-1}',
            b'{"session":"a","description":{"optimizers":3}}',
            b'{"session":"a","description":' + b"[" * 100_000,
            b'{"session":"' + b"a" * (2 << 20) + b'"}',
        ],
    )
    def test_a_crafted_header_is_refused(self, text: bytes) -> None:
        with pytest.raises(UnreadableLog):
            unpack_header(text)

    @pytest.mark.parametrize(
        "text", [b'{"session":"a","first":5,"last":2}', b'{"session":"a","first":-1,"last":2}']
    )
    def test_a_crafted_gap_is_refused(self, text: bytes) -> None:
        with pytest.raises(UnreadableLog):
            unpack_gap(text)


class TestWatch:
    def test_the_header_tells_what_is_trained(self, tmp_path) -> None:
        model = make_net()
        model[0].bias.requires_grad_(False)
        optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.2)
        limits = Thresholds(profile=0.25)
        options = {"every_n_steps": 7, "global_step": 40, "thresholds": limits}
        with gradwatch.watch(model, optimizer, logdir=tmp_path, **options) as watching:
            train(model, optimizer, 4)
        (run,) = read_runs(tmp_path)
        about = run.header.description
        assert run.header.thresholds == limits
        assert (about.model, about.n_params, about.n_trainable) == ("Sequential", 90, 82)
        assert about.optimizers == (OptimizerSettings("AdamW", (0.01,), (0.2,)),)
        assert (about.dtypes, about.devices, about.world_size) == (("float32",), ("cpu",), 1)
        assert (about.every_n_steps, about.first_step) == (7, 40)
        assert about.gradwatch_version == gradwatch.__version__
        assert (run.end.how, run.end.last_step) == ("detached", 44)
        assert run.end.records == watching.report().records > 0

    def test_an_exception_is_named(self, tmp_path) -> None:
        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        watching = gradwatch.watch(model, optimizer, logdir=tmp_path)

        def break_off() -> None:
            with watching:
                train(model, optimizer)
                raise KeyError("theirs")

        with pytest.raises(KeyError):
            break_off()
        (run,) = read_runs(tmp_path)
        assert (run.end.how, run.end.detail) == ("exception", "KeyError")
        assert main(["check", str(tmp_path)]) == 2
        assert main(["check", str(tmp_path), "--allow-unfinished"]) == 0

    def test_our_own_failure_is_at_the_end(self, tmp_path, monkeypatch, capsys) -> None:
        from gradwatch.verdict.engine import Doctor

        seen, observe = [], Doctor.observe

        def fail_at_12(self, record):
            seen.append(record)
            if len(seen) == 12:
                raise ZeroDivisionError("ours")
            return observe(self, record)

        monkeypatch.setattr(Doctor, "observe", fail_at_12)
        with pytest.warns(RuntimeWarning, match="ours"):
            watch_and_train(tmp_path, 20, every_n_steps=1)
        monkeypatch.undo()
        assert main(["check", str(tmp_path), "--allow-unfinished"]) == 2
        assert "ZeroDivisionError" in capsys.readouterr().err

    def test_a_full_disk_and_space_again(self, tmp_path, monkeypatch, capsys) -> None:
        from gradwatch.log.event_file import EventFile

        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def refuse(self, data):
            raise OSError(28, "No space left on device")

        with gradwatch.watch(model, optimizer, logdir=tmp_path, every_n_steps=1) as watching:
            train(model, optimizer, 5)
            monkeypatch.setattr(EventFile, "append", refuse)
            with pytest.warns(RuntimeWarning) as warned:
                train(model, optimizer, 3)
            monkeypatch.undo()
            assert len(warned) == 1
            train(model, optimizer, 7)
        assert watching.report().records == 15
        (run,) = read_runs(tmp_path)
        assert [(gap.first, gap.last) for gap in run.gaps] == [(5, 7)]
        assert len(run) == 12
        assert run.damage == ()
        assert main(["check", str(tmp_path)]) == 2
        assert "3 records could not be written (OSError" in capsys.readouterr().err
        assert main(["check", str(tmp_path), "--allow-unfinished"]) == 0

    @pytest.mark.skipif(os.name != "posix", reason="an open file cannot be deleted elsewhere")
    def test_a_deleted_directory_is_made_again(self, tmp_path) -> None:
        logdir = tmp_path / "run"
        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with gradwatch.watch(model, optimizer, logdir=logdir, every_n_steps=1):
            train(model, optimizer, 4)
            shutil.rmtree(logdir)
            with pytest.warns(RuntimeWarning, match="was deleted") as warned:
                train(model, optimizer, 6)
            assert len(warned) == 1
        (run,) = read_runs(logdir)
        assert [entry.number for entry in run.entries] == list(range(4, 10))
        assert [(gap.first, gap.last) for gap in run.gaps] == [(0, 3)]
        assert run.damage == ()


class TestSeveralSessions:
    def test_a_resumed_run_closes_its_predecessor(self, tmp_path, capsys) -> None:
        write_session(tmp_path, range(10), end=False)
        write_session(tmp_path, range(5, 15))
        (run,) = read_runs(tmp_path)
        assert [entry.global_step for entry in run.entries] == list(range(15))
        (outcome,) = judge_logdir(str(tmp_path)).outcomes
        assert outcome.unfinished == ""
        assert outcome.notes == ("preempted and resumed once",)

    def test_a_clock_that_went_back_before_a_resume(self, tmp_path, monkeypatch) -> None:
        write_session(tmp_path, range(10), value=1.0)
        clock = time.time
        monkeypatch.setattr(time, "time", lambda: clock() - 3600)
        write_session(tmp_path, range(5, 15), value=2.0)
        (run,) = read_runs(tmp_path)
        values = [record.step_values[0] for record in run.records()]
        assert values == [1.0] * 5 + [2.0] * 10

    def test_watches_side_by_side_stay_two_runs(self, tmp_path) -> None:
        logs = [EventLog(tmp_path), EventLog(tmp_path)]
        for log in logs:
            log.begin(Thresholds(), RunDescription())
        for step in range(3):
            for n_layers, log in enumerate(logs, start=2):
                log.write_record(make_record(step, make_layer_set(n_layers)))
        for log in logs:
            log.end("detached", "", 3)
            log.close()
        runs = read_runs(tmp_path)
        assert [len(run) for run in runs] == [3, 3]
        assert [run.end.how for run in runs] == ["detached", "detached"]

    def test_a_copy_of_an_event_file_counts_once(self, tmp_path) -> None:
        write_session(tmp_path, range(5))
        (path,) = tmp_path.iterdir()
        shutil.copy(path, tmp_path / (path.name + ".bak"))
        (run,) = read_runs(tmp_path)
        assert len(run) == 5
        assert run.damage == ()

    def test_a_session_whose_first_file_is_gone(self, tmp_path) -> None:
        log = write_session(tmp_path, range(3), end=False)
        start = next(iter(read_runs(tmp_path)[0].entries)).offset - 12
        content = log._file.path.read_bytes()
        log._file.path.write_bytes(content[start:])
        assert "start mark" in read_runs(tmp_path)[0].damage[0]


def read_in_tab(logdir: Path) -> dict:
    """What the tab says of the one run in a directory."""
    from tensorboard.backend.event_processing import data_provider
    from tensorboard.backend.event_processing import plugin_event_multiplexer as multiplexers

    from gradwatch.tensorboard_plugin.runs import RunReader, WatchedRun

    multiplexer = multiplexers.EventMultiplexer(tensor_size_guidance={"gradwatch": 0})
    multiplexer.AddRunsFromDirectory(str(logdir)).Reload()
    reader = RunReader(data_provider.MultiplexerDataProvider(multiplexer, str(logdir)))
    ((name, tags),) = reader.list_runs().items()
    shown = WatchedRun(name)
    reader.read(shown, tags)
    return shown.brief


def judge_everywhere(logdir: Path) -> dict[str, tuple]:
    judgement: Judgement = judge_logdir(str(logdir))
    (verdict,) = judgement.verdicts
    page = logdir / "page.html"
    assert main(["report", str(logdir), "-o", str(page)]) == 0
    codes = [finding.code for finding in verdict.findings]
    html = page.read_text(encoding="utf-8")
    return {
        "check": tuple(codes),
        "tab": tuple(finding["code"] for finding in read_in_tab(logdir)["findings"]),
        "page": tuple(code for code in codes if code in html),
    }


def test_the_tab_says_what_could_not_be_written(tmp_path, monkeypatch) -> None:
    from gradwatch.log.event_file import EventFile

    log = write_session(tmp_path, range(5), end=False)
    with monkeypatch.context() as patch:
        patch.setattr(EventFile, "append", lambda *_: 1 / 0)
        for step in range(5, 8):
            with pytest.raises(ZeroDivisionError):
                log.write_record(make_record(step))
    log.write_record(make_record(8))
    log.end("exception", "KeyError", 9)
    log.close()
    brief = read_in_tab(tmp_path)
    assert brief["unseen"][-1].startswith("3 records could not be written (ZeroDivisionError")
    assert (brief["state"]["how"], brief["state"]["detail"]) == ("crashed", "KeyError")


def test_the_tab_says_that_records_are_missing(tmp_path) -> None:
    from benchmarks.fuzz_log import split_frames

    path = write_session(tmp_path, range(9))._file.path
    assert read_in_tab(tmp_path)["unseen"] == []
    frames = split_frames(path.read_bytes())
    held = [place for place, frame in enumerate(frames) if b"gradwatch/record" in frame]
    del frames[held[4]]
    path.write_bytes(b"".join(frames))
    brief = read_in_tab(tmp_path)
    assert brief["unseen"] == ["1 record missing: the log is damaged, see gradwatch check"]
    assert brief["severity"] != "healthy"


class Bare(nn.Module):
    """The least that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(2))

    def forward(self) -> torch.Tensor:
        return self.p.square().sum()


def test_no_run_writes_records_too_small_for_the_limit(tmp_path) -> None:
    """However long it is, none of its records is refused."""
    allowed: list[int] = []
    for steps in (10, 40):
        model, logdir = Bare(), tmp_path / str(steps)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        with gradwatch.watch(model, optimizer, logdir=logdir, every_n_steps=1):
            for _ in range(steps):
                model().backward()
                optimizer.step()
                optimizer.zero_grad()
        (path,) = logdir.glob("*tfevents*")
        entry = Entry(path, 0, 0, 0.0, 0, "")
        allowed.append(count_allowed_records((entry,)))
    assert allowed[1] - allowed[0] >= 30, allowed


def test_the_tab_has_the_limits_of_check(tmp_path) -> None:
    from benchmarks.crafted_logs import repeat_packed

    content = repeat_packed(2_000, 50)
    (tmp_path / "events.out.tfevents.1").write_bytes(content)
    assert "columns in records of this size" in read_in_tab(tmp_path)["error"]
    assert main(["check", str(tmp_path)]) == 2


SETTINGS = (
    {},
    {"ignore_kinds": ("vanishing",)},
    {"ignore_layers": ("*",)},
    {"persistence": 100},
    {"profile": 1e-30, "sensitivity": 1e-30},
    {"update_ratio": 0.0, "relative_update": 0.0},
    {"saturated_fraction": 0.0, "output_gain": 1.0},
)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_live_and_log_and_tab_and_page_agree(tmp_path, setting, capsys) -> None:
    model = make_net(12, nn.Sigmoid)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    limits = Thresholds(**setting)
    with gradwatch.watch(model, optimizer, logdir=tmp_path, thresholds=limits) as watching:
        train(model, optimizer, 40)
    live = tuple(finding.code for finding in watching.report().findings)
    assert judge_everywhere(tmp_path) == {"check": live, "tab": live, "page": live}


def test_the_settings_make_a_difference(tmp_path) -> None:
    found = set()
    for place, setting in enumerate(SETTINGS[:3]):
        model = make_net(12, nn.Sigmoid)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with gradwatch.watch(model, optimizer, thresholds=Thresholds(**setting)) as watching:
            train(model, optimizer, 40)
        found.add((place, len(watching.report().findings)))
    assert {count for _, count in found} == {0, 1}


KILLED = """
import sys, torch, gradwatch
torch.set_num_threads(1)
from tests.log.test_marks import make_net, train
model = make_net()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
watching = gradwatch.watch(model, optimizer, logdir=sys.argv[1], every_n_steps=1)
train(model, optimizer, 6)
print("ready", flush=True)
train(model, optimizer, 10**9)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.13])
def test_kill_9_leaves_a_run_without_an_end(tmp_path, delay, capsys) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, cwd=root
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    assert main(["check", str(tmp_path)]) == 2
    assert "still running, or killed" in capsys.readouterr().err
    (run,) = read_runs(tmp_path)
    assert run.damage == ()
    assert len(run) >= 6
    assert main(["check", str(tmp_path), "--allow-unfinished"]) == 0
