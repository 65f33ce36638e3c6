"""Every kind of finding and every cause, one row each: order, words, and what belongs together.

Rules, the terminal, pages and the command line read these rows. A rule of a kind that has no row
here gets one from its own title (``register_kind``), behind the others.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes:
        name: as in ``Finding.kind`` and on the command line.
        title: the kind as a title.
        codes: of the rules that find it.
        causes: names of the causes that such a finding can have.
        may_lack_cause: the cause can stay open.
        compares: what is observed is a gradient against another, which it is less than.
        units_do: what the observed share of an activation's units does; empty: it is no such share.
        is_recalled: worth a line of its own also when it is over.
    """

    name: str
    title: str
    codes: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    may_lack_cause: bool = False
    compares: bool = False
    units_do: str = ""
    is_recalled: bool = False


@dataclass(frozen=True)
class Cause:
    """One cause of findings.

    Attributes:
        name: as in ``Finding.cause``.
        words: the cause as a person would say it.
    """

    name: str
    words: str


KINDS: dict[str, Kind] = {
    row.name: row
    for row in (
        Kind(
            "nonfinite", "NaN or Inf", ("GW601",),
            ("precision", "learning_rate", "weight_scale", "depth", "through_time"),
            may_lack_cause=True, is_recalled=True,
        ),
        Kind(
            "mishandled", "Mishandled gradients", ("GW802",),
            ("loss_sign", "not_cleared", "cleared", "not_unscaled"), is_recalled=True,
        ),
        Kind(
            "ranks", "Ranks that differ", ("GW803",),
            ("not_reduced", "clipped_apart", "weights_apart"), is_recalled=True,
        ),
        Kind(
            "unmoved", "Weights that never move", ("GW801",),
            ("not_optimized", "not_stepped", "lost_update", "learning_rate"),
        ),
        Kind(
            "vanishing", "Vanishing gradient", ("GW101", "GW102"),
            ("activation_derivative", "weight_scale", "weight_decay", "saturation", "dead_units",
             "depth",
             "through_time", "learning_rate", "disconnected"),
            compares=True, is_recalled=True,
        ),
        Kind(
            "exploding", "Exploding gradient", ("GW201",),
            ("weight_scale", "depth", "through_time", "learning_rate"), is_recalled=True,
            may_lack_cause=True,
        ),
        Kind("underflow", "Gradient underflow", ("GW501",), ("precision",), is_recalled=True),
        Kind(
            "dead", "Dead units", ("GW401",),
            ("dead_units", "learning_rate", "weight_scale", "depth"),
            units_do="never fire",
        ),
        Kind(
            "saturated", "Saturated units", ("GW301",), ("saturation", "learning_rate"),
            units_do="are stuck where their slope is near zero",
        ),
        Kind("disconnected", "Disconnected layers", ("GW701",), ("disconnected",)),
    )
}  # fmt: skip
"""All kinds by name, in the order in which findings of equal severity are shown."""

CAUSES: dict[str, Cause] = {
    row.name: row
    for row in (
        Cause("activation_derivative", "the derivative of the activation is small"),
        Cause("weight_scale", "the scale of weights or factors"),
        Cause("weight_decay", "weight decay"),
        Cause("saturation", "saturated activations"),
        Cause("dead_units", "units that never fire"),
        Cause("precision", "the precision of the number format"),
        Cause("disconnected", "no path from the loss"),
        Cause("through_time", "the product over time steps"),
        Cause("depth", "depth without skips"),
        Cause("learning_rate", "the learning rate"),
        Cause("not_optimized", "no optimizer that holds it"),
        Cause("not_stepped", "an optimizer that is never stepped"),
        Cause("lost_update", "a step that never reaches the weight"),
        Cause("loss_sign", "the sign of the loss"),
        Cause("not_cleared", "gradients that are never cleared"),
        Cause("cleared", "gradients that are cleared before the step"),
        Cause("not_unscaled", "clipping of gradients that are still scaled"),
        Cause("not_reduced", "gradients that are not averaged over the ranks"),
        Cause("clipped_apart", "gradients that are changed on some ranks only"),
        Cause("weights_apart", "weights that differ from rank to rank"),
    )
}
"""All causes by name."""


def register_kind(name: str, title: str, code: str) -> None:
    """Make sure that a rule's kind is known; one that is new comes behind the others.

    Args:
        name: of the kind.
        title: of the rule, for the kind's title.
        code: of the rule.
    """
    KINDS.setdefault(name, Kind(name, title, (code,)))


def find_kind(name: str) -> Kind:
    """The row of a kind; one made up of its name where a log holds a kind that is not known.

    Args:
        name: as in ``Finding.kind``.

    Example:
        >>> find_kind("dead").units_do, find_kind("cold_start").title
        ('never fire', 'Cold start')
    """
    return KINDS.get(name) or Kind(name, name.replace("_", " ").capitalize())


def rank_kind(name: str) -> int:
    """Place of a kind among findings of equal severity, from 0; what is not known comes last.

    Args:
        name: as in ``Finding.kind``.

    Example:
        >>> rank_kind("nonfinite") < rank_kind("vanishing") < rank_kind("unheard_of")
        True
    """
    return list(KINDS).index(name) if name in KINDS else len(KINDS)


def describe_cause(name: str | None) -> str:
    """A cause as a person would say it.

    Args:
        name: as in ``Finding.cause``; ``None`` where it is not known.

    Returns:
        ``""`` for ``None``; the name itself where it has no row.

    Example:
        >>> describe_cause("depth")
        'depth without skips'
    """
    row = CAUSES.get(name or "")
    return row.words if row else name or ""
