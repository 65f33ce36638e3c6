"""Which sampled steps are executed from a plan, and which are followed call by call."""

from __future__ import annotations

from collections.abc import Container

from gradwatch.capture.call_rows import RowMemory
from gradwatch.capture.calls import CallKey
from gradwatch.capture.compiled_step import CompiledStep
from gradwatch.capture.inventory import Inventory
from gradwatch.capture.layers import LayerRecorder
from gradwatch.capture.plan import Plan

AGREEING_DRAFTS = 2
"""Steps in a row that have to be the same before the next one is expected to be so."""

MAX_MISMATCHES = 3
"""A training whose steps differ from each other this often is followed call by call."""


class Planner:
    """Learns from each sampled step what the next one will do.

    Args:
        inventory: of the model; another set of modules needs another plan.

    Attributes:
        memory: of what is reduced together, kept from step to step.
    """

    def __init__(self, inventory: Inventory) -> None:
        self.memory = RowMemory()
        self._inventory = inventory
        self._listing = -1
        self._plan: Plan | None = None
        self._agreeing = 0
        self._mismatches = 0

    def choose(self, linked: Container[CallKey]) -> Plan | None:
        """The plan of the step that begins; ``None`` where it has to be followed.

        Args:
            linked: calls that a record has described.
        """
        self._forget_others()
        if self._plan is None or self._agreeing < AGREEING_DRAFTS:
            return None
        return self._plan if self._plan.is_known(linked) else None

    def learn(self, recorder: LayerRecorder) -> bool:
        """A sampled step is complete; answers whether what it has read can be believed.

        Args:
            recorder: of the step.
        """
        self._forget_others()
        execution = recorder.execution
        if execution is None:
            self._compare(recorder.draft.finish())
            return True
        if execution.is_complete:
            return True
        if isinstance(execution, CompiledStep) and execution.is_refused:
            return False
        self._plan, self._agreeing = None, 0
        self._mismatches += 1
        return False

    def _forget_others(self) -> None:
        """A plan of a model that has been exchanged in part is none of this one."""
        if self._listing != self._inventory.listing:
            self._listing, self._plan, self._agreeing = self._inventory.listing, None, 0

    def _compare(self, plan: Plan | None) -> None:
        if plan is None or self._mismatches >= MAX_MISMATCHES:
            self._plan, self._agreeing = None, 0
            return
        self._agreeing = self._agreeing + 1 if plan == self._plan else 1
        self._plan = plan
