"""What a run's log says of itself: how the watch began, how it ended, and what was not written.

Plain data, no torch. ``RunHeader`` is written when a journal opens, ``RunEnd`` when it closes,
``RunGap`` when writing works again after records were lost. Each carries the name of its session,
which every record carries as well, so that the parts of a log are distinguished and none is missed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from gradwatch.errors import UnreadableLog
from gradwatch.thresholds import DEFAULTS, Thresholds

ENDINGS: tuple[str, ...] = ("detached", "exception", "failure")
"""How a watch ends: as it should, with the training's own error, or with one of gradwatch's."""


_MAX_COUNT = 1 << 48  # of files or records: beyond what any training makes


@dataclass(frozen=True)
class OptimizerSettings:
    """One optimizer as it was when the watch began.

    Attributes:
        type: class name, such as ``"AdamW"``.
        learning_rates: of its parameter groups.
        weight_decays: of its parameter groups; 0 where it knows none.
    """

    type: str
    learning_rates: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()


@dataclass(frozen=True)
class RunDescription:
    """What is trained, and where.

    Attributes:
        model: class name.
        n_params: parameter elements of the model.
        n_trainable: elements that require a gradient.
        trainable_digest: of the names of the trainable parameters, 8 hexadecimal digits.
        optimizers: those that the watch was given.
        dtypes: of the parameters, such as ``("bfloat16", "float32")``.
        devices: of the parameters, such as ``("cuda:0",)``.
        world_size: number of ranks.
        gradwatch_version, torch_version: such as ``"2.13.0"``.
        every_n_steps: longest wait between two sampled steps.
        first_step: global step at which the watch began.
        batch_size: samples of an optimizer step over all ranks; 0 where nobody has said.
    """

    model: str = ""
    n_params: int = 0
    n_trainable: int = 0
    trainable_digest: str = ""
    optimizers: tuple[OptimizerSettings, ...] = ()
    dtypes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    world_size: int = 1
    gradwatch_version: str = ""
    torch_version: str = ""
    every_n_steps: int = 0
    first_step: int = 0
    batch_size: int = 0


@dataclass(frozen=True)
class RunHeader:
    """The start mark: what was to be watched, and by which thresholds it is judged.

    Attributes:
        session: name of this watch, 8 hexadecimal digits.
        started_at: wall time, seconds since 1970.
        python_version: that wrote the log.
        thresholds: in force.
        description: what is trained.
        files_before: event files that stood in the directory at the start; a resumed run sees more
            of them than its predecessor, whatever the clock says.
        beside: sessions that were open in this process, in the same place.
        is_clock_back: a file from before the start was newer than the clock.
    """

    session: str
    started_at: float = 0.0
    python_version: str = ""
    thresholds: Thresholds = DEFAULTS
    description: RunDescription = field(default_factory=RunDescription)
    files_before: int = 0
    beside: tuple[str, ...] = ()
    is_clock_back: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.started_at) and 0 <= self.files_before < _MAX_COUNT):
            raise ValueError(f"a start at {self.started_at}, after {self.files_before} files")


@dataclass(frozen=True)
class RunEnd:
    """The end mark.

    Attributes:
        session: name of the watch.
        how: one of ``ENDINGS``.
        detail: type of the exception, or text of the failure; of a watch that nobody detached, what
            ended it.
        records: number of records that the watch made, written or not.
        last_step: global step when it ended.
        unstepped: steps' worth of backward passes after the optimizer's last step, as in
            ``Verdict``.
    """

    session: str
    how: str = "detached"
    detail: str = ""
    records: int = 0
    last_step: int = 0
    unstepped: int = 0

    def __post_init__(self) -> None:
        if self.how not in ENDINGS or not 0 <= self.records < _MAX_COUNT:
            raise ValueError(f"an end by {self.how!r} after {self.records} records")


@dataclass(frozen=True)
class RunGap:
    """Records that could not be written.

    Attributes:
        session: name of the watch.
        first, last: numbers of the first and the last of them, counted from 0.
        reason: why, in words.
    """

    session: str
    first: int
    last: int
    reason: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < _MAX_COUNT:
            raise ValueError(f"a gap from {self.first} to {self.last}")


Mark = RunHeader | RunEnd | RunGap
AnyMark = TypeVar("AnyMark", RunHeader, RunEnd, RunGap)


def pack_mark(mark: Mark) -> bytes:
    """A mark as JSON in ASCII.

    Args:
        mark: of any of the three kinds.

    Example:
        >>> pack_mark(RunGap("0a1b2c3d", first=3, last=4, reason="disk full"))
        b'{"session":"0a1b2c3d","first":3,"last":4,"reason":"disk full"}'
    """
    return json.dumps(dataclasses.asdict(mark), separators=(",", ":"), default=float).encode()


def unpack_header(content: bytes) -> RunHeader:
    """Read back a start mark; thresholds that this version does not know are passed over.

    Args:
        content: as of ``pack_mark``.

    Raises:
        UnreadableLog: damaged, or not ours.
    """
    return _unpack(RunHeader, content)


def unpack_end(content: bytes) -> RunEnd:
    """Read back an end mark.

    Args:
        content: as of ``pack_mark``.

    Raises:
        UnreadableLog: damaged, or not ours.
    """
    return _unpack(RunEnd, content)


def unpack_gap(content: bytes) -> RunGap:
    """Read back a gap mark.

    Args:
        content: as of ``pack_mark``.

    Raises:
        UnreadableLog: damaged, or not ours.
    """
    return _unpack(RunGap, content)


_NESTED = {"thresholds": Thresholds, "description": RunDescription}
MAX_MARK_BYTES = 1 << 20
"""A mark longer than this is not read: a header of 1,000 optimizers takes 100 KB."""


def _unpack(cls: type[AnyMark], content: bytes) -> AnyMark:
    try:
        if len(content) > MAX_MARK_BYTES:
            raise ValueError(f"{len(content)} bytes")
        mark: AnyMark = _revive(cls, json.loads(content))
        return mark
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise UnreadableLog(
            f"Expected a {cls.__name__} in the log, got {content[:40]!r} ({error}). "
            "The event file is damaged; run the training again."
        ) from error


def _revive(cls: type[Any], content: dict[str, Any]) -> Any:
    """Fields that we do not know are passed over; those that lack keep their defaults."""
    known = _list_types(cls)  # type: ignore[arg-type]
    values = {name: value for name, value in content.items() if name in known}
    for name, value in values.items():
        if name in _NESTED:
            values[name] = _revive(_NESTED[name], value)
        elif name == "optimizers":
            values[name] = tuple(_revive(OptimizerSettings, entry) for entry in value)
        else:
            values[name] = _convert(known[name], value)
    return cls(**values)


@lru_cache
def _list_types(cls: type[Any]) -> dict[str, str]:
    """What each field declares, by its name."""
    return {row.name: str(row.type) for row in dataclasses.fields(cls)}


_ACCEPTED: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,)}
"""Types by what a field declares; the others are numbers."""


def _convert(kind: str, value: Any) -> Any:
    """A value of the type that the field declares.

    Raises:
        TypeError: of another type.
    """
    if kind.startswith("tuple"):
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {value!r:.40}")
        return tuple(_convert(kind[len("tuple[") :].partition(",")[0], entry) for entry in value)
    if type(value) not in _ACCEPTED.get(kind, (int, float)):  # of JSON: no class is derived
        raise TypeError(f"expected {kind}, got {value!r:.40}")
    return value
