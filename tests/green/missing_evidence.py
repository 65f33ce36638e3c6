"""Too little was seen, we failed, or a part of what was seen is lost."""

from __future__ import annotations

import shutil
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

from torch.nn.functional import cross_entropy

import gradwatch
from tests.green.program import (
    STEPS,
    Family,
    build,
    build_deep,
    classify,
    draw,
    fit,
    fit_badly,
    fit_well,
    sgd,
    train,
)

TOO_LITTLE = Family("Too little data")


@TOO_LITTLE.is_unproven
def no_step(logdir: Path) -> gradwatch.Watch:
    return fit_well(logdir, steps=0)


@TOO_LITTLE.is_unproven
def one_step(logdir: Path) -> gradwatch.Watch:
    return fit_well(logdir, steps=1)


@TOO_LITTLE.is_unproven
def two_steps(logdir: Path) -> gradwatch.Watch:
    return fit_well(logdir, steps=2)


@TOO_LITTLE.is_honest
def ten_steps(logdir: Path) -> gradwatch.Watch:
    return fit_well(logdir, steps=10)


@TOO_LITTLE.is_unproven
def a_check_of_two_steps(logdir: Path) -> gradwatch.Report:
    return gradwatch.check(build(), [draw(step) for step in range(2)], cross_entropy, steps=2)


@TOO_LITTLE.is_honest
def a_check_of_ten_steps(logdir: Path) -> gradwatch.Report:
    return gradwatch.check(build(), [draw(step) for step in range(10)], cross_entropy, steps=10)


@TOO_LITTLE.is_unproven
def a_restart_of_one_step_behind_an_unhealthy_run(logdir: Path) -> gradwatch.Watch:
    model = build_deep()
    fit(logdir, model, sgd(model), classify(model), 40)
    return fit(logdir, model, sgd(model), classify(model), 1, first=40)


@TOO_LITTLE.is_honest
def a_restart_behind_a_healthy_run(logdir: Path) -> gradwatch.Watch:
    model = build()
    fit(logdir, model, sgd(model), classify(model), 40)
    return fit(logdir, model, sgd(model), classify(model), 120, first=40)


@TOO_LITTLE.is_honest
def a_finished_job_resumed_for_one_step(logdir: Path) -> None:
    """Judged by the log as a whole: the process of the one step has seen too little itself."""
    model = build()
    fit(logdir, model, sgd(model), classify(model), 40)
    fit(logdir, model, sgd(model), classify(model), 1, first=40)


FAILED = Family("An error of gradwatch's own")


def fit_while(logdir: Path, target: str, error: Exception, healed_at: int = STEPS) -> Any:
    """A training in which something of ours, or what it stands on, fails from step 12 on."""
    model = build()
    optimizer = sgd(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with gradwatch.watch(model, optimizer, logdir=logdir, every_n_steps=2) as watch:
            train(optimizer, classify(model), 12)
            with mock.patch(target, side_effect=error):
                train(optimizer, classify(model), healed_at - 12, first=12)
            train(optimizer, classify(model), STEPS - healed_at, first=healed_at)
    return watch


@FAILED.is_unproven
def a_failing_capture(logdir: Path) -> gradwatch.Watch:
    error = ZeroDivisionError("planted")
    watch: gradwatch.Watch = fit_while(
        logdir, "gradwatch.capture.param_readings.read_gradients", error
    )
    return watch


@FAILED.is_unproven
def a_failing_rule_of_ours(logdir: Path) -> gradwatch.Watch:
    watch: gradwatch.Watch = fit_while(
        logdir, "gradwatch.verdict.engine.Doctor.observe", ValueError("planted")
    )
    return watch


@FAILED.is_honest
def a_listener_of_the_users_that_fails(logdir: Path) -> gradwatch.Watch:
    model = build()
    optimizer = sgd(model)
    with (
        warnings.catch_warnings(),
        gradwatch.watch(model, optimizer, logdir=logdir, log=lambda *_: 1 / 0) as watch,
    ):
        warnings.simplefilter("ignore", RuntimeWarning)
        train(optimizer, classify(model))
    return watch


@FAILED.is_unproven
def a_full_disk(logdir: Path) -> None:
    fit_while(logdir, "gradwatch.log.event_file.EventFile.append", OSError(28, "No space left"))


@FAILED.is_unproven
def a_full_disk_and_space_again(logdir: Path) -> None:
    error = OSError(28, "No space left")
    fit_while(logdir, "gradwatch.log.event_file.EventFile.append", error, healed_at=30)


@FAILED.is_honest
def a_disk_that_is_full_for_words_only(logdir: Path) -> gradwatch.Watch:
    """Scalars and texts are lost, and every record is there."""
    watch: gradwatch.Watch = fit_while(
        logdir, "gradwatch.log.writer.EventLog.write_scalars", OSError(28, "No space left")
    )
    return watch


@FAILED.is_unproven
def a_deleted_log_directory(logdir: Path) -> None:
    model = build()
    optimizer = sgd(model)
    with (
        warnings.catch_warnings(),
        gradwatch.watch(model, optimizer, logdir=logdir / "run", every_n_steps=2),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)
        train(optimizer, classify(model), 30)
        shutil.rmtree(logdir / "run")
        train(optimizer, classify(model), 30, first=30)


@FAILED.is_honest
def another_runs_deleted_directory(logdir: Path) -> gradwatch.Watch:
    fit_well(logdir / "earlier", 10)
    model = build()
    optimizer = sgd(model)
    with gradwatch.watch(model, optimizer, logdir=logdir / "run") as watch:
        train(optimizer, classify(model), 30)
        shutil.rmtree(logdir / "earlier")
        train(optimizer, classify(model), 30, first=30)
    return watch


LOST = Family("Part of the evidence is missing")


def find_file(logdir: Path) -> Path:
    (path,) = logdir.glob("*tfevents*")
    return path


def flip_a_bit(path: Path, share: float) -> None:
    """In the middle of a frame of ours, by where the file's records stand."""
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0x10
    path.write_bytes(bytes(content))


@LOST.is_unproven
def a_bit_that_flipped_in_the_middle(logdir: Path) -> None:
    fit_well(logdir)
    flip_a_bit(find_file(logdir), 0.5)


@LOST.is_unproven
def a_frame_cut_out_of_the_middle(logdir: Path) -> None:
    """Each frame that is left is sound."""
    from benchmarks.fuzz_log import split_frames

    fit_well(logdir)
    path = find_file(logdir)
    frames = split_frames(path.read_bytes())
    place = next(
        place for place in range(len(frames) // 2, 0, -1) if b"gradwatch/record" in frames[place]
    )
    path.write_bytes(b"".join(frames[:place] + frames[place + 1 :]))


@LOST.is_honest
def a_copy_of_the_event_file_beside_it(logdir: Path) -> None:
    fit_well(logdir)
    path = find_file(logdir)
    shutil.copy(path, path.with_name(path.name + ".bak"))


@LOST.is_honest
def an_empty_directory_beside_a_run(logdir: Path) -> None:
    fit_well(logdir / "a")
    (logdir / "b").mkdir()


@LOST.is_unproven
def a_corrupt_run_beside_a_healthy_one(logdir: Path) -> None:
    fit_well(logdir / "b")
    fit_well(logdir / "a")
    find_file(logdir / "a").write_bytes(b"\xff" * 4096)


@LOST.is_unproven
def a_corrupt_run_beside_an_unhealthy_one(logdir: Path) -> None:
    fit_badly(logdir / "b")
    fit_well(logdir / "a")
    find_file(logdir / "a").write_bytes(b"\xff" * 4096)


@LOST.is_honest
def somebody_elses_event_file_beside_a_run(logdir: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    fit_well(logdir / "a")
    with SummaryWriter(str(logdir / "b")) as writer:
        writer.add_scalar("loss", 1.0, 0)


def resume_with_the_clock_back(logdir: Path, is_deep: bool) -> None:
    model = build_deep() if is_deep else build()
    fit(logdir, model, sgd(model), classify(model), 40)
    with mock.patch("time.time", return_value=time.time() - 3600):
        fit(logdir, model, sgd(model), classify(model), 5, first=40)


@LOST.is_unproven
def a_clock_that_went_back_before_an_unhealthy_run_went_on(logdir: Path) -> None:
    resume_with_the_clock_back(logdir, is_deep=True)


@LOST.is_honest
def a_clock_that_went_back_before_a_healthy_run_went_on(logdir: Path) -> None:
    resume_with_the_clock_back(logdir, is_deep=False)
