"""Sign and Rule: what a rule sees at one sampled step, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gradwatch.evidence.call_lines import find_call_line
from gradwatch.evidence.history import History
from gradwatch.evidence.topology import Mask, Topology
from gradwatch.thresholds import Thresholds


class Explanation(NamedTuple):
    """What somebody who reads a finding wants to know besides its place.

    Attributes:
        cause: a name in ``schema.kinds.CAUSES``, or ``None``.
        message: one sentence with the numbers.
        faults: keys of the layers that are to blame, and that a remedy may change; empty: the
            named layers and all that their gradient comes through.
        remedy: what to change; empty: the standard remedy of the cause.
        source: line of the user's code that is to blame; empty: none is known.
    """

    cause: str | None
    message: str
    faults: tuple[str, ...] = ()
    remedy: str = ""
    source: str = ""


@dataclass(frozen=True)
class Sign:
    """What is unhealthy in one region at one sampled step; it becomes a finding when it lasts.

    Attributes:
        layers: fully qualified names, worst first.
        cause: a name in ``schema.kinds.CAUSES``, or ``None``.
        observed: the number that was judged.
        threshold: what it was judged against.
        message: one sentence with the numbers.
        severity: ``"warning"``, ``"critical"``, or ``"note"`` for what should wake nobody.
        looks_back: the sign itself covers many steps and need not last any longer.
        remedy: what to change; empty: the standard remedy of the cause.
        faults: keys of the layers to blame, see ``Explanation``.
        source: line of the user's code that is to blame, such as ``"path/model.py:42"``.
        is_open: more records would tell whether this does harm.
        topology: of the network, so that the remedy can name its modules; the doctor sets it.
        explain: finds cause and message where that is costly; asked only when somebody reads them.
    """

    layers: tuple[str, ...]
    cause: str | None
    observed: float
    threshold: float
    message: str
    severity: str = "critical"
    looks_back: bool = False
    remedy: str = ""
    faults: tuple[str, ...] = ()
    source: str = ""
    is_open: bool = False
    topology: Topology | None = field(default=None, repr=False, compare=False)
    explain: Callable[[], Explanation] | None = field(default=None, repr=False, compare=False)

    def explained(self) -> Sign:
        """The same with cause and message found."""
        if self.explain is None:
            return self
        with np.errstate(all="ignore"):
            found = self.explain()
        return self.change(**found._asdict(), explain=None)

    def change(self, **fields: Any) -> Sign:
        """A copy with some fields changed; ``dataclasses.replace`` takes ten times as long.

        Args:
            **fields: by name.
        """
        changed = object.__new__(type(self))
        vars(changed).update(vars(self), **fields)
        return changed

    def find_source(self) -> str:
        """The line that is to blame; else the one that calls the first layer, where it is known."""
        if self.source or self.topology is None:
            return self.source
        return find_call_line(self.topology, self.layers)


@dataclass(frozen=True)
class Guard:
    """What a criterion would call unhealthy, and is not.

    Attributes:
        name: one or two words; ``benchmarks.ablation`` takes each guard out by its name.
        why: why it is not unhealthy.
        find: of the parameters that the criterion has found ``(n_params,)``, those that it spares.
        source: where this is described; ``""`` where it follows from the mathematics.
        cases: runs of the zoo that it was written for.
    """

    name: str
    why: str
    find: Callable[[History, Thresholds, Mask], Mask]
    source: str = ""
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """One way to be unhealthy that gradwatch can find.

    Attributes:
        code: such as ``"GW101"``.
        kind: a name in ``schema.kinds.KINDS``, or one of its own.
        title: a few words.
        examine: the newest step of a history -> signs of it at that step.
        doc: Markdown: what it does, why it matters, formula and source, example, limits,
            configuration. ``gradwatch explain`` and the documentation print it.
        persistence: sampled steps in a row that a sign must last; ``None``: the configured number.
        guards: what the criterion would call unhealthy and is not; already part of ``examine``.
        withdraws: a sign speaks of the whole run so far: its absence ends a finding at once.
    """

    code: str
    kind: str
    title: str
    examine: Callable[[History, Thresholds], list[Sign]]
    doc: str
    persistence: int | None = None
    guards: tuple[Guard, ...] = ()
    withdraws: bool = False
