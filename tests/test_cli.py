"""The command line as a CI job and a person use it: status, output, and one clear line of error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.summary.writer.event_file_writer import EventFileWriter

import gradwatch
from gradwatch.cli import main
from gradwatch.log.writer import EventLog
from gradwatch.run_marks import RunDescription
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rules import DEFAULT_RULES
from tests.display.trainings import make_training

UNHEALTHY, WELL = 0.22, 1.0


def write_run(
    logdir, phi_gain: float, how: str = "detached", thresholds: Thresholds | None = None
) -> None:
    log = EventLog(logdir)
    log.begin(thresholds or Thresholds(), RunDescription(model="Sequential"))
    for record in make_training(phi_gain):
        log.write_record(record)
    if how:
        log.end(how, "" if how == "detached" else "ValueError", 30)
    log.close()


def begin_run(logdir) -> None:
    """A training that is killed before its first record."""
    log = EventLog(logdir)
    log.begin(Thresholds(), RunDescription(model="Sequential"))
    log.close()


def write_garbage(logdir) -> None:
    logdir.mkdir(parents=True)
    (logdir / "events.out.tfevents.1").write_bytes(b"this is not an event file")


def write_foreign(logdir) -> None:
    EventFileWriter(str(logdir)).close()


def damage(logdir, share: float) -> None:
    """Overwrite some bytes in the middle."""
    (path,) = logdir.glob("*tfevents*")
    content = bytearray(path.read_bytes())
    start = int(len(content) * share)
    content[start : start + 4000] = b"\xff" * 4000
    path.write_bytes(content)


class TestCheckStatus:
    def test_healthy(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "relu", WELL)
        assert main(["check", str(tmp_path / "relu")]) == 0
        out, err = capsys.readouterr()
        assert out.startswith("✓ relu: Every one of 12 weights learns")
        assert err == ""

    def test_findings(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "sigmoid", UNHEALTHY)
        assert main(["check", str(tmp_path / "sigmoid")]) == 1
        out, err = capsys.readouterr()
        assert "GW101" in out
        assert "activation_derivative" in out
        assert "Remedy" in out
        assert err == ""

    def test_the_worst_run_decides(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "a", WELL)
        write_run(tmp_path / "b", UNHEALTHY)
        write_run(tmp_path / "c", WELL)
        assert main(["check", str(tmp_path)]) == 1
        out = capsys.readouterr().out
        assert out.index("a: Every one of") < out.index("b: ") < out.index("c: Every one of")

    def test_only_the_kinds_asked_for_fail(self, tmp_path, capsys) -> None:
        write_run(tmp_path, UNHEALTHY)
        assert main(["check", str(tmp_path), "--fail-on", "dead", "exploding"]) == 0
        assert "GW101" in capsys.readouterr().out
        assert main(["check", str(tmp_path), "--fail-on", "dead", "--fail-on", "vanishing"]) == 1

    def test_thresholds_can_be_changed_after_the_run(self, tmp_path, capsys) -> None:
        write_run(tmp_path, UNHEALTHY)
        assert main(["check", str(tmp_path), "--threshold", "ignore_kinds=vanishing"]) == 0
        never = ["--threshold", "persistence=10000", "--threshold", "persistence_steps=1000000"]
        assert main(["check", str(tmp_path), *never]) == 2  # and nothing is proven then


class TestNothingToJudge:
    def check(self, logdir, capsys) -> str:
        assert main(["check", str(logdir)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        lines = err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("gradwatch: ")
        return lines[0]

    def test_no_directory(self, tmp_path, capsys) -> None:
        assert "does not exist" in self.check(tmp_path / "nowhere", capsys)

    def test_an_empty_directory(self, tmp_path, capsys) -> None:
        assert "Expected event files under" in self.check(tmp_path, capsys)

    def test_runs_of_someone_else(self, tmp_path, capsys) -> None:
        write_foreign(tmp_path / "other")
        assert "Expected records of gradwatch" in self.check(tmp_path, capsys)

    def test_a_log_without_an_event(self, tmp_path, capsys) -> None:
        EventLog(tmp_path).close()
        assert "ends before its first event" in self.check(tmp_path, capsys)

    @pytest.mark.parametrize("logdir", ["", " "])
    def test_a_variable_that_is_not_set(self, tmp_path, capsys, monkeypatch, logdir) -> None:
        write_run(tmp_path, WELL)
        monkeypatch.chdir(tmp_path)
        assert "Expected a log directory" in self.check(logdir, capsys)

    def test_garbage(self, tmp_path, capsys) -> None:
        write_garbage(tmp_path / "run")
        assert "'run' is not judged: " in self.check(tmp_path, capsys)

    def test_truncated_beyond_use(self, tmp_path, capsys) -> None:
        write_run(tmp_path, UNHEALTHY)
        (path,) = tmp_path.iterdir()
        os.truncate(path, 200)
        self.check(tmp_path, capsys)


class TestSomeRunsCannotBeJudged:
    def test_a_foreign_run_among_others_is_named(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "mine", WELL)
        write_foreign(tmp_path / "other")
        assert main(["check", str(tmp_path)]) == 0
        assert "no gradwatch records in 'other'" in capsys.readouterr().err

    def test_an_unreadable_run_never_passes(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "mine", WELL)
        write_garbage(tmp_path / "broken")
        assert main(["check", str(tmp_path)]) == 2
        assert "'broken' is not judged: " in capsys.readouterr().err

    @pytest.mark.parametrize("length", [0, 30, 100])
    def test_a_log_of_ours_that_is_cut_before_its_first_event_is_not_someone_elses(
        self, tmp_path, capsys, length
    ) -> None:
        write_run(tmp_path / "a", WELL)
        write_run(tmp_path / "b", WELL)
        (path,) = (tmp_path / "b").iterdir()
        os.truncate(path, length)
        assert main(["check", str(tmp_path)]) == 2
        assert "'b' is not judged: " in capsys.readouterr().err

    def test_findings_outrank_an_unreadable_run(self, tmp_path) -> None:
        write_run(tmp_path / "mine", UNHEALTHY)
        write_garbage(tmp_path / "broken")
        assert main(["check", str(tmp_path)]) == 1

    @pytest.mark.parametrize(
        ("phi_gain", "status", "words"), [(WELL, 2, "not judged"), (UNHEALTHY, 1, "judged in part")]
    )
    def test_a_run_read_in_part(self, tmp_path, capsys, phi_gain, status, words) -> None:
        write_run(tmp_path / "run", phi_gain)
        damage(tmp_path / "run", 0.6)
        assert main(["check", str(tmp_path)]) == status
        out, err = capsys.readouterr()
        assert f"'run' is {words}: events.out.tfevents" in err
        assert "at byte" in err
        assert "✓" not in out

    def test_a_truncated_last_record_leaves_the_run_unfinished(self, tmp_path, capsys) -> None:
        write_run(tmp_path, WELL, how="")
        (path,) = tmp_path.iterdir()
        os.truncate(path, path.stat().st_size - 5)
        assert main(["check", str(tmp_path)]) == 2
        assert "it has no end" in capsys.readouterr().err
        assert main(["check", str(tmp_path), "--allow-unfinished"]) == 0
        out, err = capsys.readouterr()
        assert "29 recorded" in out
        assert len(err.splitlines()) == 1
        assert "judged up to its last record" in err


class TestEnds:
    @pytest.mark.parametrize("how", ["", "exception"])
    def test_unfinished_is_2_unless_allowed_and_findings_outrank_it(
        self, tmp_path, capsys, how
    ) -> None:
        write_run(tmp_path / "a", WELL, how)
        assert main(["check", str(tmp_path)]) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert main(["check", str(tmp_path), "--allow-unfinished"]) == 0
        write_run(tmp_path / "b", UNHEALTHY, how)
        assert main(["check", str(tmp_path)]) == 1

    def test_without_a_record_nothing_is_allowed(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "a", WELL)
        begin_run(tmp_path / "b")
        assert main(["check", str(tmp_path), "--allow-unfinished"]) == 2
        assert "'b' is not judged: it has no end" in capsys.readouterr().err

    @pytest.mark.parametrize(("first_step", "status"), [(0, 2), (29, 2), (30, 0)])
    def test_a_training_begun_again_without_a_step_is_not_that_of_before(
        self, tmp_path, capsys, first_step, status
    ) -> None:
        write_run(tmp_path, WELL)
        log = EventLog(tmp_path)
        log.begin(Thresholds(), RunDescription(first_step=first_step))
        log.end("detached", "", first_step)
        log.close()
        assert main(["check", str(tmp_path)]) == status
        assert ("its latest training made no step" in capsys.readouterr().err) == (status == 2)

    def test_our_own_failure_is_2_whatever_is_allowed(self, tmp_path, capsys) -> None:
        write_run(tmp_path, WELL, "failure")
        assert main(["check", str(tmp_path), "--allow-unfinished"]) == 2
        assert "an error of gradwatch's own" in capsys.readouterr().err

    def test_every_other_run_is_judged(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "a", WELL, "failure")
        write_run(tmp_path / "b", WELL)
        assert main(["check", str(tmp_path)]) == 2
        assert "✓ b: " in capsys.readouterr().out

    def test_a_log_from_before_the_marks_is_judged_with_a_note(self, tmp_path, capsys) -> None:
        log = EventLog(tmp_path)
        for record in make_training(WELL):
            log.write_record(record)
        log.close()
        assert main(["check", str(tmp_path)]) == 0
        assert "before logs had a start and an end" in capsys.readouterr().err

    def test_a_lost_record_in_the_middle_is_known(self, tmp_path, capsys) -> None:
        log = EventLog(tmp_path)
        log.begin(Thresholds(), RunDescription())
        for place, record in enumerate(make_training(WELL)):
            if place == 7:
                log._made += 1
            else:
                log.write_record(record)
        log.end("detached", "", 30)
        log.close()
        assert main(["check", str(tmp_path)]) == 2
        assert "1 records of session" in capsys.readouterr().err


class TestThresholdsOfTheLog:
    def test_the_training_s_own_hold_and_an_override_is_printed(self, tmp_path, capsys) -> None:
        write_run(tmp_path, UNHEALTHY, thresholds=Thresholds(ignore_kinds=("vanishing",)))
        assert main(["check", str(tmp_path)]) == 0
        assert capsys.readouterr().err == ""
        assert main(["check", str(tmp_path), "--threshold", "ignore_kinds="]) == 1
        assert "given instead of the training's: ignore_kinds = ()" in capsys.readouterr().err

    def test_what_the_training_had_as_well_is_no_override(self, tmp_path, capsys) -> None:
        write_run(tmp_path, WELL)
        given = f"persistence={Thresholds().persistence}"
        assert main(["check", str(tmp_path), "--threshold", given]) == 0
        assert "given instead" not in capsys.readouterr().err

    @pytest.mark.parametrize("given", ["profile=-1", "persistence=0"])
    def test_one_that_makes_no_sense_is_refused_in_one_line(self, tmp_path, capsys, given) -> None:
        write_run(tmp_path, WELL)
        assert main(["check", str(tmp_path), "--threshold", given]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="pipes and permissions are POSIX's")
class TestStrangePlaces:
    def test_a_pipe_named_like_an_event_file(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "a", WELL)
        os.mkfifo(tmp_path / "a" / "events.out.tfevents.2")
        assert main(["check", str(tmp_path)]) == 2
        assert "got a pipe" in capsys.readouterr().err
        assert main(["check", str(tmp_path / "a" / "events.out.tfevents.2")]) == 2

    def test_a_directory_named_like_one(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "a", WELL)
        (tmp_path / "a" / "events.out.tfevents.2").mkdir()
        assert main(["check", str(tmp_path)]) == 2

    def test_a_directory_that_cannot_be_entered(self, tmp_path, capsys, monkeypatch) -> None:
        write_run(tmp_path / "a", WELL)
        write_run(tmp_path / "b", UNHEALTHY)
        scan = os.scandir

        def refuse(path):
            if str(path).endswith("b"):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
        assert main(["check", str(tmp_path)]) == 2
        assert "'b' is not judged: b: Permission denied" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_taken_for_findings(tmp_path, capsys, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("gradwatch.run_judgement.diagnose", fail)
    write_run(tmp_path, WELL)
    assert main(["check", str(tmp_path)]) == 2
    assert "RuntimeError: a fault" in capsys.readouterr().err


class TestFormats:
    def test_json(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "b", UNHEALTHY)
        write_run(tmp_path / "a", WELL)
        write_foreign(tmp_path / "other")
        assert main(["check", str(tmp_path), "--format", "json"]) == 1
        content = json.loads(capsys.readouterr().out)
        assert content["status"] == 1
        assert [run["run"] for run in content["runs"]] == ["a", "b"]
        assert [run["healthy"] for run in content["runs"]] == [True, False]
        assert content["runs"][1]["findings"][0]["kind"] == "vanishing"
        assert content["without_records"] == ["other"]
        assert content["unreadable"] == {}

    def test_markdown(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "b", UNHEALTHY)
        write_run(tmp_path / "a", WELL)
        main(["check", str(tmp_path), "--format", "markdown"])
        out = capsys.readouterr().out
        assert "## gradwatch `a`\n\n✅" in out
        assert "## gradwatch `b`\n\n❌" in out


class TestReport:
    def test_one_page_for_all_runs(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "logs" / "a", WELL)
        write_run(tmp_path / "logs" / "b", UNHEALTHY)
        page = tmp_path / "page.html"
        assert main(["report", str(tmp_path / "logs"), "-o", str(page)]) == 0
        assert "<html" in page.read_text(encoding="utf-8")
        assert capsys.readouterr().out.strip() == str(page)

    def test_a_place_that_cannot_be_written(self, tmp_path, capsys) -> None:
        write_run(tmp_path / "run", WELL)
        assert main(["report", str(tmp_path), "-o", str(tmp_path / "no" / "page.html")]) == 2
        assert "Expected an output file" in capsys.readouterr().err

    def test_nothing_to_show(self, tmp_path, capsys) -> None:
        page = tmp_path / "page.html"
        assert main(["report", str(tmp_path), "-o", str(page)]) == 2
        assert not page.exists()


class TestExplain:
    def test_list_of_rules_and_thresholds(self, capsys) -> None:
        assert main(["explain"]) == 0
        out = capsys.readouterr().out
        for rule in DEFAULT_RULES:
            assert f"{rule.code}  {rule.kind}" in out
        assert f"persistence = {Thresholds().persistence}" in out

    @pytest.mark.parametrize("rule", DEFAULT_RULES, ids=lambda rule: rule.code)
    def test_a_rule(self, rule, capsys) -> None:
        assert main(["explain", rule.code.lower()]) == 0
        assert rule.doc.strip() in capsys.readouterr().out

    def test_an_unknown_code(self, capsys) -> None:
        assert main(["explain", "GW999"]) == 2
        assert "GW101" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["check"],
        ["check", "x", "--fail-on", "nonsense"],
        ["check", "x", "--format", "xml"],
        ["check", "x", "--rows", "0"],
        ["check", "x", "--threshold", "persistence"],
        ["check", "x", "--threshold", "nonsense=1"],
        ["check", "x", "--threshold", "persistence=1.5"],
        ["check", "x", "--threshold", "profile=nan"],
        ["demo", "--steps", "0"],
        ["demo", "--steps", "many"],
    ],
)
def test_wrong_arguments_give_the_usage_and_2(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: gradwatch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fail-on", "vanish"], "did you mean vanishing?"),
        (["--threshold", "dead_fractoin=1"], "did you mean dead_fraction?"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(arguments, words, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["check", "x", *arguments])
    assert words in capsys.readouterr().err


def test_version(capsys) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out.strip() == f"gradwatch {gradwatch.__version__}"


def run_python(*arguments: str, **options) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, check=False, **options)


@pytest.mark.skipif(os.name != "posix", reason="pipes break differently elsewhere")
def test_a_reader_that_goes_away_leaves_the_status(tmp_path) -> None:
    write_run(tmp_path, UNHEALTHY)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "gradwatch", "check", str(tmp_path)],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == b""


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize(("phi_gain", "status"), [(WELL, 0), (UNHEALTHY, 1), (None, 2)])
def test_a_closed_stream_leaves_the_status(tmp_path, monkeypatch, name, phi_gain, status) -> None:
    if phi_gain:
        write_run(tmp_path, phi_gain)
    monkeypatch.setattr(sys, name, None)
    assert main(["check", str(tmp_path)]) == status
    getattr(sys, name).close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_full_disk_behind_stdout_is_2_in_one_line(tmp_path) -> None:
    write_run(tmp_path, WELL)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gradwatch", "check", str(tmp_path)],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"gradwatch: Expected a stdout that can be written")
    assert len(done.stderr.splitlines()) == 1


def test_an_ascii_terminal(tmp_path) -> None:
    write_run(tmp_path / "läufe", UNHEALTHY)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run_python("-m", "gradwatch", "check", str(tmp_path), env=environment)
    assert done.returncode == 1
    assert done.stdout.startswith(b"X l\\xe4ufe: ")
    markdown = ["-m", "gradwatch", "check", str(tmp_path), "--format", "markdown"]
    assert run_python(*markdown, env=environment).returncode == 1
