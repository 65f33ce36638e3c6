"""How a run began and stands, from the marks and the wall times of its log."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tensorboard.data import provider as tb_provider

from gradwatch.display.figures.series import Column
from gradwatch.display.run_facts import RunFacts
from gradwatch.log.summaries import END_TAG, GAP_TAG, START_TAG
from gradwatch.run_marks import (
    AnyMark,
    RunEnd,
    RunGap,
    RunHeader,
    unpack_end,
    unpack_gap,
    unpack_header,
)
from gradwatch.tensorboard_plugin.recorded import Data, Tagged, list_record_tags

_LATEST = 20  # records whose wall times tell how long one has to wait for the next


def read_header(data: Data) -> RunHeader | None:
    """The start mark that was written last.

    Args:
        data: of one run, by tag.

    Raises:
        UnreadableLog: it is damaged.
    """
    return _read_newest(data.get(START_TAG, ()), unpack_header)


def read_end(data: Data, header: RunHeader | None) -> RunEnd | None:
    """The end mark of the newest watch; ``None`` when that one has not ended.

    Args:
        data: of one run, by tag.
        header: of the newest watch, whose session an end must have.

    Raises:
        UnreadableLog: it is damaged.
    """
    end = _read_newest(data.get(END_TAG, ()), unpack_end)
    is_latest = end is not None and header is not None and end.session == header.session
    return end if is_latest else None


def read_gaps(data: Data) -> list[RunGap]:
    """Records that could not be written, in the order of the marks.

    Args:
        data: of one run, by tag.

    Raises:
        UnreadableLog: a mark is damaged.
    """
    return [_unpack_mark(datum, unpack_gap) for datum in data.get(GAP_TAG, ())]


def gather_facts(
    data: Data, written: Sequence[Tagged], columns: Sequence[Column], most: int
) -> RunFacts:
    """What the page says of a run besides its verdict.

    Args:
        data: of one run, by tag.
        written: its records, as ``list_intact`` gives them.
        columns: in order of their steps.
        most: data of a tag that TensorBoard keeps: where it has as many, it may have left some out.

    Raises:
        UnreadableLog: a mark is damaged.
    """
    header = read_header(data)
    times = sorted(datum.wall_time for _, datum in written)
    is_whole = all(len(data[tag]) < most for tag in list_record_tags(data))
    rates = [column.learning_rate for column in columns if math.isfinite(column.learning_rate)]
    return RunFacts(
        header,
        read_end(data, header),
        read_gaps(data),
        times[-_LATEST:],
        (rates[0], rates[-1]) if rates else (math.nan, math.nan),
        columns[-1].passes if columns else math.nan,
        _count_records(times, header) if is_whole else None,
    )


def _count_records(times: Sequence[float], header: RunHeader | None) -> int | None:
    """Records since the newest watch began; ``None`` where nobody knows when that was."""
    return None if header is None else sum(time >= header.started_at for time in times)


def _read_newest(
    written: Sequence[tb_provider.TensorDatum], unpack: Callable[[bytes], AnyMark]
) -> AnyMark | None:
    if not written:
        return None
    return _unpack_mark(max(written, key=lambda datum: datum.wall_time), unpack)


def _unpack_mark(datum: tb_provider.TensorDatum, unpack: Callable[[bytes], AnyMark]) -> AnyMark:
    return unpack(b"".join(map(bytes, datum.numpy.ravel()[:1])))
