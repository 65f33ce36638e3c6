"""When findings began, from the texts written in training.

TensorBoard keeps a random sample of a long run's records, so the first record that shows a finding
may be gone. The text that was written when it appeared tells the step.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt
from tensorboard import context as tb_context
from tensorboard.data import provider as tb_provider
from tensorboard.plugins.text import metadata as text_metadata

from gradwatch.log.summaries import TAG_PREFIX
from gradwatch.verdict.findings import Finding

MAX_TEXTS = 100  # per tag
_CODE = re.compile(r"\bGW\d{3}\b")


def read_beginnings(
    provider: tb_provider.DataProvider, run: str, experiment: str = ""
) -> dict[str, list[int]]:
    """Steps at which texts of ours name a finding's code, ascending, by code.

    Args:
        provider: TensorBoard's data provider.
        run: name of the run.
        experiment: its id; TensorBoard itself has only the empty one.
    """
    only = tb_provider.RunTagFilter(runs=[run])
    place = {"experiment_id": experiment, "plugin_name": text_metadata.PLUGIN_NAME}
    listed = provider.list_tensors(tb_context.RequestContext(), run_tag_filter=only, **place)
    tags = [tag for tag in listed.get(run, {}) if tag.startswith(TAG_PREFIX)]
    if not tags:
        return {}
    only = tb_provider.RunTagFilter(runs=[run], tags=tags)
    found = provider.read_tensors(
        tb_context.RequestContext(), run_tag_filter=only, downsample=MAX_TEXTS, **place
    )
    texts = [
        (datum.step, datum.numpy) for series in found.get(run, {}).values() for datum in series
    ]
    return gather_codes((step, _join(values)) for step, values in texts)


def gather_codes(texts: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    """Steps by code, from ``(step, text)`` pairs.

    Args:
        texts: Markdown of ``EventLog.write_text``.

    Example:
        >>> gather_codes([(9, "GW101"), (3, "GW101, GW401")])
        {'GW101': [3, 9], 'GW401': [3]}
    """
    steps: dict[str, set[int]] = {}
    for step, text in texts:
        for code in _CODE.findall(text):
            steps.setdefault(code, set()).add(int(step))
    return {code: sorted(known) for code, known in steps.items()}


def _join(values: npt.NDArray[Any]) -> str:
    parts = (value if isinstance(value, bytes) else str(value).encode() for value in values.ravel())
    return b"\n".join(parts).decode(errors="replace")


def restore_first_step(
    finding: Finding, sampled_steps: Sequence[int], began: dict[str, list[int]]
) -> Finding:
    """The finding with the step of its text, where that lies in the gap before its first record.

    A text from before that gap belongs to an earlier episode that had ended.

    Args:
        finding: of the tab's verdict, which sees a part of the records.
        sampled_steps: global steps of the records that were judged, ascending.
        began: as ``read_beginnings`` gives it.
    """
    place = bisect_left(sampled_steps, finding.first_step)
    before = sampled_steps[place - 1] if place > 0 else -1
    inside = [step for step in began.get(finding.code, []) if before < step < finding.first_step]
    return replace(finding, first_step=inside[0]) if inside else finding
