"""Operations at which a NaN or an Inf may have begun: those noted beside the place of the break."""

from __future__ import annotations

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.nonfinite import Origin
from gradwatch.schema.cut import Cut

_FINITE_WITH_A_STEEP_END = frozenset(
    ("sqrt", "pow", "float_power", "acos", "arccos", "asin", "arcsin", "acosh", "arccosh")
)


def find_singular(reading: Reading, origin: Origin) -> list[Cut]:
    """Operations between the place of a break and what was whole on its other side.

    Args:
        reading: in which the break was met first.
        origin: where it began; where that was not seen, every operation that was noted counts.

    Returns:
        The likeliest first: where all values were finite, those that are infinite in their slope
        alone; empty where none was noted.

    Example:
        >>> from dataclasses import replace
        >>> from gradwatch.evidence.worked_example import make_layer_set, make_reading
        >>> root = Cut("sqrt", "model.py:42", layers=("act",), is_singular=True)
        >>> reading = make_reading(layer_set=replace(make_layer_set(), cuts=(root,)))
        >>> [cut.source for cut in find_singular(reading, Origin(("fc1",), "output"))]
        ['model.py:42']
        >>> find_singular(reading, Origin(("act",), "output"))
        []
    """
    noted = [cut for cut in reading.topology.layer_set.cuts if cut.is_singular]
    if origin.what != "unseen":
        fed = _find_fed(reading, origin)
        noted = [cut for cut in noted if fed & {*cut.layers, *cut.params}]
    is_value = origin.what == "output" or is_loss_broken(reading)
    return sorted(noted, key=lambda cut: is_value == (cut.function in _FINITE_WITH_A_STEEP_END))


def is_loss_broken(reading: Reading) -> bool:
    """Whether the loss itself is NaN or Inf; False where it is not known.

    Args:
        reading: of one record, in which a number that is not finite is Inf.
    """
    return bool(reading.record.step("loss") == float("inf"))


def _find_fed(reading: Reading, origin: Origin) -> set[str]:
    """What an operation at the break takes in: what is whole before it, by name."""
    if origin.what != "output":
        return set(origin.layers)
    layers = reading.topology.layers
    broken = [layer for layer in layers if layer.fqn == origin.layers[0]]
    return {layers[source].fqn for layer in broken for source in layer.inputs}
