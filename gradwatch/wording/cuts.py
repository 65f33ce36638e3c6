"""A call that lets no gradient through, and what to put in its place."""

from __future__ import annotations

from collections.abc import Sequence

from gradwatch.schema.cut import Cut

SHOWN_CUTS = 2
"""Places that a sentence names."""

_CALLS = {
    "data": "`.data`",
    "torch.no_grad": "`torch.no_grad()`",
    "comparison": "the comparison",
    "autograd.Function": "the `autograd.Function`",
}

_HANDED_ON = frozenset(("detach", "detach_", "data", "torch.no_grad"))
_NUMBERS = frozenset(("item", "tolist", "numpy", "float", "int", "index", "array", "tensor"))
_CHOICES = frozenset(("argmax", "argmin", "topk", "sort", "argsort", "multinomial", "max", "min"))


def describe_cuts(cuts: Sequence[Cut]) -> str:
    """Where gradients end, as a phrase; several joined by "and".

    Args:
        cuts: the nearest to the loss first; ``SHOWN_CUTS`` are named.

    Example:
        >>> describe_cuts([Cut("detach", "model.py:42", "h = h.detach()", "Encoder.forward")])
        'model.py:42, `h = h.detach()` in Encoder.forward'
    """
    return " and ".join(_describe(cut) for cut in cuts[:SHOWN_CUTS])


def _describe(cut: Cut) -> str:
    line = cut.line.replace("`", "'")
    code = f"`{line}`" if line else name_function(cut)
    where = f" in {cut.caller}" if cut.caller else ""
    return f"{cut.source}, {code}{where}"


def name_function(cut: Cut) -> str:
    """The call of a cut as it stands in a sentence.

    Args:
        cut: the call.

    Example:
        >>> name_function(Cut("round")), name_function(Cut("comparison"))
        ('`round()`', 'the comparison')
    """
    function = _find_function(cut)
    return _CALLS.get(function, f"`{function}()`")


def _find_function(cut: Cut) -> str:
    """What makes plain numbers in the same line comes after ``detach()``, and is what counts."""
    numbers = (name for name in ("numpy", "tolist", "item") if f".{name}(" in cut.line)
    return next(numbers, cut.function) if cut.function in _HANDED_ON else cut.function


def advise_cut(cut: Cut, region: str) -> str:
    """What to do about a cut.

    Args:
        cut: the call.
        region: the parameters behind it, as a phrase.

    Returns:
        One sentence.

    Example:
        >>> advise_cut(Cut("detach", "model.py:42"), "`encoder`").partition(",")[0]
        'Take `detach()` away at model.py:42'
    """
    function, name = _find_function(cut), name_function(cut)
    frozen = f"freeze {region} (requires_grad_(False)) if that is meant"
    if function in ("sample", "sample_n"):
        return (
            f"Use rsample() in place of {name} at {cut.source}, where the distribution has it; "
            "else Gumbel-softmax, a straight-through estimator or a score-function loss "
            f"(log_prob); or {frozen}."
        )
    if function == "autograd.Function":
        return f"Let backward() of {name} at {cut.source} return a gradient; or {frozen}."
    if function in _HANDED_ON:
        return f"Take {name} away at {cut.source}, or {frozen}."
    if function in _NUMBERS:
        return f"Keep the tensor at {cut.source}, where {name} makes plain numbers; or {frozen}."
    why = "has a slope of zero almost everywhere" if cut.is_flat else "has no gradient"
    soft = "softmax or Gumbel-softmax" if function in _CHOICES else "a smooth function"
    return (
        f"{name[0].upper()}{name[1:]} at {cut.source} {why}: lead the gradient past it with a "
        f"straight-through estimator (x + (f(x) - x).detach()), or use {soft} in training; "
        f"or {frozen}."
    )
