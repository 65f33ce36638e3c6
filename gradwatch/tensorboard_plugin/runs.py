"""Runs as the tab knows them: read through TensorBoard's data provider, judged, and remembered.

A run is read again only when it has new steps, and only the new steps are judged. What is kept is
small: the words, at most 600 columns and the doctor's bounded history, for a few runs only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tensorboard import context as tb_context
from tensorboard.data import provider as tb_provider

from gradwatch.display.figures.events import find_events
from gradwatch.display.figures.series import Column, Histograms, Series, columns_of, thin
from gradwatch.display.page_data import write_brief
from gradwatch.display.run_facts import RunFacts
from gradwatch.errors import GradWatchError
from gradwatch.log.summaries import PLUGIN_NAME, START_TAG, TRIALS_TAG, unpack_layer_set
from gradwatch.log.trial_summaries import unpack_trials
from gradwatch.run_marks import RunHeader
from gradwatch.tensorboard_plugin.first_steps import read_beginnings, restore_first_step
from gradwatch.tensorboard_plugin.recorded import (
    Recorded,
    gather_histograms,
    gather_records,
    has_layers,
    list_intact,
    list_record_tags,
)
from gradwatch.tensorboard_plugin.run_state import gather_facts, read_header
from gradwatch.tensorboard_plugin.snapshot import Snapshot
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import Doctor
from gradwatch.verdict.trials import Trial

MAX_SAMPLES = 2000  # recorded steps asked for per run
MAX_JUDGED_NUMBERS = 400_000  # layers x steps judged at one reading: a few seconds

logger = logging.getLogger("gradwatch")

Tags = Mapping[str, tb_provider.TensorTimeSeries]
Signature = tuple[tuple[str, int, float], ...]


def sign(tags: Tags) -> Signature:
    """Changes when a run has new data.

    Args:
        tags: of one run.
    """
    return tuple(
        sorted((tag, series.max_step, series.max_wall_time) for tag, series in tags.items())
    )


@dataclass
class WatchedRun:
    """One run: what the page shows of it, and what is needed to go on judging.

    Attributes:
        name: as TensorBoard names it.
        signature: of the data behind the snapshot; empty before the first reading.
        snapshot: ``None`` before the first reading.
        doctor: has seen all records up to ``last_judged``; used by the reading thread only.
        header: the start mark; ``None`` in logs from before there were marks.
        revision: of the monitor when the snapshot was made.
    """

    name: str
    signature: Signature = ()
    snapshot: Snapshot | None = None
    doctor: Doctor | None = None
    last_judged: int = -1
    header: RunHeader | None = None
    revision: int = 0

    @property
    def thresholds(self) -> Thresholds:
        """Those in force at the training."""
        return self.header.thresholds if self.header else Thresholds()

    def follow(self, header: RunHeader | None) -> None:
        """Take the newest start mark; other thresholds than before begin the judging again.

        Args:
            header: the newest; ``None`` in logs from before there were marks.
        """
        before, self.header = self.thresholds, header
        if self.thresholds != before:
            self.doctor, self.last_judged = None, -1

    def began_again(self, steps: Sequence[int]) -> bool:
        """Whether the log is another training's, or was cut off behind what has been judged.

        Args:
            steps: global steps of the log as it is now, ascending.
        """
        return bool(steps) and steps[-1] < self.last_judged

    def known_columns(self, steps: Sequence[int]) -> Sequence[Column]:
        """Columns that can be used again.

        Args:
            steps: global steps of the log as it is now, ascending.
        """
        return () if self.snapshot is None or self.began_again(steps) else self.snapshot.columns

    @property
    def brief(self) -> dict[str, Any]:
        """The words; empty before the first reading."""
        return self.snapshot.brief if self.snapshot else {}

    def forget(self) -> None:
        """Drop all but the words; the next request reads the run again."""
        self.snapshot = Snapshot(self.brief) if self.snapshot else None
        self.doctor, self.last_judged = None, -1


class Drawn(NamedTuple):
    """What the pictures of a run are made of."""

    columns: list[Column]
    histograms: Histograms


class RunReader:
    """Lists and reads runs.

    Args:
        provider: TensorBoard's data provider.
        kept: data of a tag that TensorBoard keeps; 0: all.
    """

    def __init__(self, provider: tb_provider.DataProvider, kept: int = 0) -> None:
        self._provider = provider
        self._kept = min(kept, MAX_SAMPLES) if kept > 0 else MAX_SAMPLES

    def list_runs(self) -> dict[str, Tags]:
        """Runs with a start mark or records of ours, by name, and their tags."""
        found = self._provider.list_tensors(
            tb_context.RequestContext(), experiment_id="", plugin_name=PLUGIN_NAME
        )
        return {
            run: tags
            for run, tags in sorted(found.items())
            if START_TAG in tags or list_record_tags(tags)
        }

    def read(self, run: WatchedRun, tags: Tags) -> None:
        """Bring a run up to date; an unreadable one gets a brief that says why.

        Args:
            run: gets another snapshot and signature; its doctor sees the new records.
            tags: of the run, as ``list_runs`` gives them.
        """
        signature = sign(tags)
        try:
            data = self._read_tensors(run.name, tags)
            tried = _unpack_latest(data.pop(TRIALS_TAG, []))
            marked = data
            data = {tag: series for tag, series in data.items() if has_layers(tag)}
            sets = {tag: unpack_layer_set(tags[tag].plugin_content) for tag in data}
            began = read_beginnings(self._provider, run.name)
            written = list_intact(data)
            recorded, histograms = gather_records(written, sets), gather_histograms(data, sets)
            run.follow(read_header(marked))
            columns = _columns(recorded, run.known_columns(recorded.steps))
            facts = gather_facts(marked, written, columns, self._kept)
            run.snapshot = _judge(run, recorded, Drawn(columns, histograms), began, tried, facts)
            if list_record_tags(tags) and not recorded.steps:  # still being loaded: read it again
                signature = ()
        except GradWatchError as error:
            _give_up(run, str(error))
        except Exception as error:  # one run that we fail on must not hide the others
            logger.exception("gradwatch failed on run %r", run.name)
            _give_up(run, f"gradwatch failed on it: {type(error).__name__}: {error}")
        run.signature = signature

    def _read_tensors(
        self, name: str, tags: Iterable[str]
    ) -> dict[str, list[tb_provider.TensorDatum]]:
        found = self._provider.read_tensors(
            tb_context.RequestContext(),
            experiment_id="",
            plugin_name=PLUGIN_NAME,
            downsample=MAX_SAMPLES,
            run_tag_filter=tb_provider.RunTagFilter(runs=[name], tags=list(tags)),
        )
        return dict(found.get(name, {}))


def _give_up(run: WatchedRun, reason: str) -> None:
    run.forget()
    run.snapshot = Snapshot({"error": reason, "severity": "error"})


def _unpack_latest(written: Sequence[tb_provider.TensorDatum]) -> tuple[Trial, ...]:
    """The trials written last; damaged ones do not hide the run."""
    if not written:
        return ()
    latest = max(written, key=lambda datum: datum.wall_time)
    try:
        return unpack_trials(bytes(latest.numpy.ravel()[0]))
    except (GradWatchError, IndexError, TypeError) as error:
        logger.warning("gradwatch could not read trials of remedies: %s", error)
        return ()


def _judge(
    run: WatchedRun,
    recorded: Recorded,
    drawn: Drawn,
    began: dict[str, list[int]],
    tried: Sequence[Trial] = (),
    facts: RunFacts | None = None,
) -> Snapshot:
    """Let the run's doctor see the records that are new."""
    if run.doctor is None or run.began_again(recorded.steps):
        run.doctor, run.last_judged = Doctor(run.thresholds), -1
    for record in recorded.unpack(_select(recorded, run.last_judged)):
        run.doctor.observe(record)
        run.last_judged = record.global_step
    end = None if facts is None else facts.end
    verdict = run.doctor.judge(run.name, unstepped=0 if end is None else end.unstepped)
    findings = tuple(
        restore_first_step(finding, recorded.steps, began) for finding in verdict.findings
    )
    series = Series.from_columns(drawn.columns, drawn.histograms, run.thresholds)
    events = find_events(series)
    brief = write_brief(replace(verdict, findings=findings), tried, events, facts)
    layers = brief.pop("layers")
    return Snapshot(brief, layers, drawn.columns, drawn.histograms, run.thresholds)


def _select(recorded: Recorded, after: int) -> Sequence[int]:
    """Places of all new records; evenly fewer of a very deep network's, and always the last."""
    fresh = [place for place, step in enumerate(recorded.steps) if step > after]
    layers = max((len(layer_set.layers) for layer_set, _ in recorded.vectors), default=0)
    limit = max(2, MAX_JUDGED_NUMBERS // max(layers, 1))
    return [fresh[i] for i in thin(fresh, limit)]


def _columns(recorded: Recorded, known: Iterable[Column]) -> list[Column]:
    """Columns of an even choice of the records; those made before are used again."""
    made = {column.global_step: column for column in known}
    chosen = thin(recorded.steps)
    missing = [place for place in chosen if recorded.steps[place] not in made]
    fresh = columns_of(list(recorded.unpack(missing)))
    made.update((column.global_step, column) for column in fresh)
    return [made[recorded.steps[place]] for place in chosen]
