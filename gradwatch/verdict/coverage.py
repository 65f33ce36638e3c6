"""What a pass proves: which parameters were seen to learn, which not, and why not."""

from __future__ import annotations

from dataclasses import dataclass

LEARNS, UNHEALTHY, BY_DESIGN, NOT_JUDGED = "learns", "unhealthy", "by_design", "not_judged"
"""States of a parameter."""

HEALTHY = "healthy"
"""Status of a run, beside ``UNHEALTHY`` and ``NOT_JUDGED``."""


@dataclass(frozen=True)
class ParamState:
    """What the records say of one trainable parameter.

    Attributes:
        fqn: of the parameter.
        state: ``"learns"``, ``"unhealthy"``, ``"by_design"`` or ``"not_judged"``.
        reason: in words, where it does not simply learn.
        records: sampled steps at which it was seen to learn.
        is_weight: a matrix; biases and scales follow theirs.
    """

    fqn: str
    state: str
    reason: str = ""
    records: int = 0
    is_weight: bool = True


@dataclass(frozen=True)
class Coverage:
    """All trainable parameters that an optimizer holds; all trainable ones where none was given.

    One in whose place an optimizer holds a tensor that the model has no longer is among them.

    Attributes:
        params: one state each, in the model's order.
        records: sampled steps that were judged.

    Example:
        >>> learns = ParamState("fc0.weight", "learns", records=9)
        >>> Coverage((learns, ParamState("fc1.weight", "not_judged")), 9).counted
        (1, 2)
    """

    params: tuple[ParamState, ...] = ()
    records: int = 0

    def of_state(self, state: str) -> tuple[ParamState, ...]:
        """Parameters in one state.

        Args:
            state: such as ``"learns"``, see ``ParamState``.
        """
        return tuple(param for param in self.params if param.state == state)

    @property
    def counted(self) -> tuple[int, int]:
        """Weights seen to learn, and all weights; tensors of any shape where there are none."""
        weights = [param for param in self.params if param.is_weight] or list(self.params)
        return sum(param.state == LEARNS for param in weights), len(weights)

    def to_dict(self) -> dict[str, object]:
        """Plain data: counts, and by name what does not simply learn."""
        learned, weights = self.counted
        others = [param for param in self.params if param.state != LEARNS]
        return {
            "weights_learning": learned,
            "weights": weights,
            "others": {param.fqn: [param.state, param.reason] for param in others},
        }

    @property
    def proves_learning(self) -> bool:
        """Whether at least one parameter learns, and nothing is left that was not judged."""
        return bool(self.of_state(LEARNS)) and not self.of_state(NOT_JUDGED)
