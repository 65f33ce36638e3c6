"""An operation at which a NaN may have begun, and how to keep it away from there."""

from __future__ import annotations

from collections.abc import Sequence

from gradwatch.schema.cut import Cut
from gradwatch.wording.cuts import SHOWN_CUTS
from gradwatch.wording.module_names import join_phrases

_WORDS = {
    **dict.fromkeys(("div", "divide", "true_divide", "rdiv", "reciprocal"), "a division"),
    **dict.fromkeys(("pow", "float_power", "rpow"), "a power"),
}
_LOGS = frozenset(("log", "log2", "log10", "log1p", "logit"))
_INVERSES = frozenset(("acos", "arccos", "asin", "arcsin", "atanh", "arctanh", "erfinv"))
_GROWING = frozenset(("exp", "exp2", "expm1", "sinh", "cosh", "rpow"))


def name_singular(cuts: Sequence[Cut]) -> str:
    """The operations with their lines, as a phrase.

    Args:
        cuts: the likeliest first; ``SHOWN_CUTS`` are named and the rest counted.

    Example:
        >>> name_singular([Cut("sqrt", "model.py:42", "d = s.sqrt()", "Head.forward")])
        '`sqrt` (model.py:42, `d = s.sqrt()` in Head.forward)'
    """
    phrases = [_name(cut) for cut in cuts[:SHOWN_CUTS]]
    more = len(cuts) - len(phrases)
    return join_phrases([*phrases, f"{more} more"] if more else phrases)


def _name(cut: Cut) -> str:
    function = _WORDS.get(cut.function, f"`{cut.function}`")
    line = cut.line.replace("`", "'")
    code = f", `{line}`" if line else ""
    where = f" in {cut.caller}" if cut.caller else ""
    return f"{function} ({cut.source}{code}{where})"


def advise_singular(cuts: Sequence[Cut]) -> str:
    """How to keep these operations away from where they, or their slopes, are infinite.

    Args:
        cuts: the likeliest first; ``SHOWN_CUTS`` are spoken of.

    Returns:
        A sentence for each, without the last full stop.

    Example:
        >>> advise_singular([Cut("div", "loss.py:7")])
        'Keep the divisor at loss.py:7 away from 0: add an epsilon, or clamp(min=eps)'
    """
    return ". ".join(dict.fromkeys(_advise(cut) for cut in cuts[:SHOWN_CUTS]))


def _advise(cut: Cut) -> str:
    name = f"what `{cut.function}` at {cut.source} takes in"
    if cut.function == "ctc_loss":
        return (
            f"`ctc_loss` at {cut.source} is Inf where a target is longer than its input can carry, "
            "one step for each label and one more between equal ones: leave such samples out, or "
            "zero_infinity=True"
        )
    if cut.function in _LOGS:
        return f"Keep {name} above 0: clamp(min=eps), or log_softmax or logsigmoid"
    if cut.function in ("sqrt", "rsqrt"):
        return f"Keep {name} above 0: sqrt(x + eps), whose slope at 0 is finite"
    if cut.function in ("pow", "float_power"):
        return f"Keep {name} above 0: (x + eps) ** p, whose slope at 0 is finite"
    if cut.function in _INVERSES:
        return f"Keep {name} away from its ends: clamp(-1 + eps, 1 - eps)"
    if cut.function in _GROWING:
        return f"Keep {name} small: clamp(max=...), or subtract the maximum; exp(89) is Inf"
    if cut.function in _WORDS:
        return f"Keep the divisor at {cut.source} away from 0: add an epsilon, or clamp(min=eps)"
    return f"Keep {name} away from where it is infinite"
