"""Numbers and regions as a person would say them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradwatch.schema.layer_set import OUTSIDE
from gradwatch.wording.module_names import NameGroup, group_names, join_phrases

LARGEST_WORD = 1e15
"""From here on a number is "over 1,000 trillion": nobody counts in quadrillions."""

_WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


def name_lack(share: float, others: str) -> str:
    """How much less gradient a layer gets than others.

    Args:
        share: of the others' gradient; NaN where it is not known.
        others: name of a layer, or a phrase.

    Example:
        >>> name_lack(2.6e-7, "fc9")
        '3.8 million times less gradient than fc9'
    """
    others = say_name(others)
    if math.isnan(share):
        return f"far less gradient than {others}"
    if share <= 0:
        return f"no gradient at all, unlike {others}"
    if share * LARGEST_WORD < 1:
        return f"practically no gradient, unlike {others}"
    return f"{name_number(1 / share)} times less gradient than {others}"


def name_number(value: float) -> str:
    """Two digits and a word; ``"over 1,000 trillion"`` beyond.

    Args:
        value: above 0; ``"countless"`` where it is infinite.

    Example:
        >>> name_number(3_812_345), name_number(46_200), name_number(0.5), name_number(1e20)
        ('3.8 million', '46,000', '0.5', 'over 1,000 trillion')
    """
    if not math.isfinite(value):
        return "countless" if value > 0 else str(value)
    rounded = float(f"{value:.2g}")
    if rounded >= LARGEST_WORD:
        return "over 1,000 trillion"
    size, word = next((row for row in _WORDS if rounded >= row[0]), (1.0, ""))
    return f"{_round(rounded / size)} {word}".rstrip()


def _round(value: float) -> str:
    """Two digits without an exponent: ``"0.5"``, ``"3.8"``, ``"320"``, ``"46,000"``."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.2g}"


def name_region(layers: Sequence[str], shown: int = 3) -> str:
    """Layers in few words.

    Args:
        layers: names, worst first.
        shown: names or ranges that are written out; the rest is a count.

    Example:
        >>> name_region(["fc1", "fc2"]), name_region(["fc1", "fc2", "fc3", "fc4", "head"])
        ('fc1 and fc2', 'fc1 to fc4 and head')
        >>> name_region(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more layers'
    """
    if len(layers) <= shown:
        return join_phrases([say_name(layer) for layer in layers])
    groups = group_names(layers)
    phrases = [_name_group(group) for group in groups[:shown]]
    hidden = sum(len(group.names) for group in groups[shown:])
    if hidden:
        phrases.append(f"{hidden} more layer{'s' if hidden > 1 else ''}")
    return join_phrases(phrases)


def say_name(name: str) -> str:
    """A layer's name; ``"layer 0"`` where a name is a number, as in ``nn.Sequential``.

    Args:
        name: fully qualified; ``""`` is the model itself.

    Example:
        >>> say_name("fc1"), say_name("0"), say_name("")
        ('fc1', 'layer 0', 'the model')
    """
    if name.startswith(f"{OUTSIDE}:"):
        return f"{name.partition(':')[2]} outside of forward"
    return f"layer {name}" if name.isdigit() else name or "the model"


def _name_group(group: NameGroup) -> str:
    """A range where the numbers leave no gap, else a count and its ends."""
    count = len(group.names)
    if count == 1:
        return say_name(group.names[0])
    first, last = map(say_name, group.ends)
    return f"{first} to {last}" if group.spacing == 1 else f"{count} layers from {first} to {last}"


def name_percent(share: float) -> str:
    """A share in percent, without digits behind the point.

    Args:
        share: from 0 to 1.

    Example:
        >>> name_percent(0.873)
        '87 %'
    """
    return f"{100 * share:.0f} %"


def say_no_fall(step: int) -> str:
    """What is left open where weights move and the loss stays, as a clause.

    Args:
        step: the last one.

    Example:
        >>> say_no_fall(1200)
        'but the loss shows no fall by step 1,200'
    """
    return f"but the loss shows no fall by step {step:,}"
