"""Records of a run as TensorBoard's data provider gives them: by step, unpacked when needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorboard.data import provider as tb_provider

from gradwatch.display.figures.series import Histograms
from gradwatch.log.limits import require_columns
from gradwatch.log.summaries import RECORD_PREFIX, UNITS_PREFIX, unpack_units
from gradwatch.records import LayerSet, StepRecord
from gradwatch.schema.packing import is_intact

Data = Mapping[str, Sequence[tb_provider.TensorDatum]]
"""What was written under each tag of a run."""

Tagged = tuple[str, tb_provider.TensorDatum]
"""What was written once, with its tag."""


@dataclass(frozen=True)
class Recorded:
    """Records of a run as they came, unpacked only when they are needed.

    Attributes:
        steps: global steps, ascending.
        vectors: for each its layer set and numbers.
    """

    steps: tuple[int, ...]
    vectors: tuple[tuple[LayerSet, Any], ...]

    def unpack(self, places: Iterable[int]) -> Iterator[StepRecord]:
        """The records at these places.

        Args:
            places: indices into ``steps``.
        """
        for place in places:
            layer_set, vector = self.vectors[place]
            yield StepRecord.from_vector(self.steps[place], layer_set, vector)


def list_record_tags(tags: Iterable[str]) -> list[str]:
    """Tags that hold records, one for each layer set.

    Args:
        tags: of one run.
    """
    return [tag for tag in tags if tag.startswith(RECORD_PREFIX)]


def list_intact(data: Data) -> list[Tagged]:
    """What was written as records and is as it was written, with its tag.

    TensorBoard's own reader does not look at a file's checksums.

    Args:
        data: of one run, by tag.
    """
    tags = list_record_tags(data)
    return [(tag, datum) for tag in tags for datum in data[tag] if is_intact(datum.numpy)]


def gather_records(written: Iterable[Tagged], sets: Mapping[str, LayerSet]) -> Recorded:
    """Records in order of their steps; where a resumed run wrote a step twice, the later.

    Args:
        written: of one run, as ``list_intact`` gives it.
        sets: layer set of each tag.

    Raises:
        UnreadableLog: a few bytes stand for more columns than any record has.
    """
    newest: dict[int, tuple[float, str, Any]] = {}
    for tag, datum in written:
        if datum.step not in newest or datum.wall_time >= newest[datum.step][0]:
            newest[datum.step] = (datum.wall_time, tag, datum.numpy)
    steps = tuple(sorted(newest))
    recorded = Recorded(steps, tuple((sets[newest[s][1]], newest[s][2]) for s in steps))
    require_columns(recorded.vectors)
    return recorded


def gather_histograms(data: Data, sets: Mapping[str, LayerSet]) -> Histograms:
    """Counts of pre-activations, by activation and global step.

    Args:
        data: of one run, by tag.
        sets: layer set of each tag.
    """
    found: Histograms = {}
    for tag, series in data.items():
        if tag.startswith(UNITS_PREFIX):
            for datum in series:
                for key, counts in unpack_units(sets[tag], datum.numpy).items():
                    found.setdefault(key, {})[datum.step] = counts
    return found


def has_layers(tag: str) -> bool:
    """Whether a tag's plugin content is a layer set.

    Args:
        tag: of one run.
    """
    return tag.startswith((RECORD_PREFIX, UNITS_PREFIX))
