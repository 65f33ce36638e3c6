"""Places in a network as a person would say them: "all 11 Sigmoid modules"."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

from gradwatch.records import Layer, Param
from gradwatch.schema.layer_set import OUTSIDE

_DIGITS = re.compile(r"([0-9]+)")

SHOWN_PATTERNS = 3
"""Patterns that are written out; the rest is a count."""


@dataclass(frozen=True)
class NameGroup:
    """Names that differ in numbers only.

    Attributes:
        names: in the order of first mention.
        texts: what stands around the numbers, one more than there are numbers.
        numbers: of each name, as written.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    numbers: tuple[tuple[str, ...], ...]

    @cached_property
    def ends(self) -> tuple[str, str]:
        """The names with the smallest and the largest numbers."""
        counted = [tuple(map(int, number)) for number in self.numbers]
        first, last = counted.index(min(counted)), counted.index(max(counted))
        return self.names[first], self.names[last]

    @cached_property
    def spacing(self) -> int | None:
        """Distance of the numbers, when one number differs and by the same from name to name."""
        varying = [number for number in zip(*self.numbers, strict=True) if len(set(number)) > 1]
        if len(varying) != 1:
            return None
        ordered = sorted(map(int, varying[0]))
        distances = {after - before for before, after in pairwise(ordered)}
        return distances.pop() if len(distances) == 1 else None


@lru_cache(maxsize=1 << 14)
def _split(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    pieces = _DIGITS.split(name)
    return tuple(pieces[::2]), tuple(pieces[1::2])


def group_names(names: Iterable[str]) -> list[NameGroup]:
    """Names by what is left without their numbers, in the order of first mention.

    Args:
        names: of layers or modules.

    Example:
        >>> [group.names for group in group_names(["fc1", "fc2", "head"])]
        [('fc1', 'fc2'), ('head',)]
    """
    return list(_group(tuple(names)))


@lru_cache(maxsize=16)  # a sign that lasts names the same layers at each record
def _group(names: tuple[str, ...]) -> tuple[NameGroup, ...]:
    groups: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = defaultdict(dict)
    for name in names:
        texts, numbers = _split(name)
        groups[texts][name] = numbers
    return tuple(
        NameGroup(tuple(group), texts, tuple(group.values())) for texts, group in groups.items()
    )


def name_patterns(names: Iterable[str], types: Mapping[str, str] | None = None) -> str:
    """Names in backticks, those that differ in numbers by their ends.

    Args:
        names: of layers or modules; ``SHOWN_PATTERNS`` are written out.
        types: by name, for those that are a number and say nothing.

    Example:
        >>> name_patterns(["fc1", "fc2", "fc3", "head"]), name_patterns(["0"], {"0": "Linear"})
        ('`fc1` to `fc3` and `head`', 'layer 0 (Linear)')
    """
    patterns = [_name_ends(group, types or {}) for group in group_names(names)]
    shown = patterns[:SHOWN_PATTERNS]
    if len(patterns) > len(shown):
        return f"{', '.join(shown)} and {len(patterns) - len(shown)} more"
    return join_phrases(shown)


def _name_ends(group: NameGroup, types: Mapping[str, str]) -> str:
    if all(name.isdigit() for name in group.names):
        return _name_numbers(group, types)
    first, last = group.ends
    joint = " and " if len(group.names) == 2 else " to "
    return _quote(first) if len(group.names) == 1 else joint.join((_quote(first), _quote(last)))


def _name_numbers(group: NameGroup, types: Mapping[str, str]) -> str:
    """Places in an ``nn.Sequential``: ``"layer 0 (Linear)"``, ``"layers 0 and 2 (Linear)"``."""
    kinds = {types.get(name, "") for name in group.names}
    kind = f" ({min(kinds)})" if len(kinds) == 1 and kinds != {""} else ""
    first, last = group.ends
    if len(group.names) == 1:
        return f"layer {first}{kind}"
    return f"layers {first}{' and ' if len(group.names) == 2 else ' to '}{last}{kind}"


def describe_layers(layers: Sequence[Layer], among: Sequence[Layer] = ()) -> str:
    """Layers by type and name; calls of a function by the modules that call it.

    Args:
        layers: to be named.
        among: those of the whole network; several that are all of their type are not listed:
            ``"all 11 Sigmoid modules"``.

    Returns:
        Empty without layers.

    Example:
        >>> calls = [Layer(f"b.{i}:tanh", type="tanh") for i in (0, 1)]
        >>> describe_layers([Layer("act", type="Tanh")]), describe_layers(calls)
        ('the Tanh module `act`', 'the 2 calls of tanh in `b.0` and `b.1`')
    """
    everywhere: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for layer in among:
        everywhere[layer.type, is_function(layer)].add(layer.fqn)
    by_type: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for layer in layers:
        by_type[layer.type, is_function(layer)].append(layer.fqn)
    phrases = [
        _describe_all(kind, calls, len(set(fqns)))
        if 1 < len(set(fqns)) == len(everywhere[kind, calls])
        else _describe_calls(kind, fqns)
        if calls
        else describe_modules(kind, list(dict.fromkeys(fqns)))
        for (kind, calls), fqns in by_type.items()
    ]
    return join_phrases(phrases)


def _describe_all(kind: str, calls: bool, count: int) -> str:
    return f"all {count} calls of {kind}" if calls else f"all {count} {kind} modules"


def is_function(layer: Layer) -> bool:
    """Whether the layer is a call of a function, not of a module.

    Args:
        layer: of any role.

    Example:
        >>> is_function(Layer("block:tanh", type="tanh")), is_function(Layer("act", type="Tanh"))
        (True, False)
    """
    return ":" in layer.fqn or (layer.role == "activation" and layer.fqn == layer.type)


def describe_modules(kind: str, fqns: Sequence[str]) -> str:
    """Modules of one class, with their number.

    Args:
        kind: the class.
        fqns: their names; ``""`` is the model itself, which is not named.

    Example:
        >>> describe_modules("Sigmoid", ["act1", "act2", "act3"]), describe_modules("Tanh", ["0"])
        ('the 3 Sigmoid modules `act1` to `act3`', 'layer 0 (Tanh)')
    """
    if all(fqn.isdigit() for fqn in fqns):
        named = name_patterns(fqns)
        return f"{named} ({kind})" if len(fqns) == 1 else f"the {len(fqns)} {kind} {named}"
    count = "" if len(fqns) == 1 else f"{len(fqns)} "
    plural = "" if len(fqns) == 1 else "s"
    where = "" if fqns == [""] else f" {name_patterns(fqns)}"
    return f"the {count}{kind} module{plural}{where}"


def _describe_calls(function: str, fqns: Sequence[str]) -> str:
    callers = [fqn.rpartition(":")[0] for fqn in fqns]  # empty: the model itself
    what = f"the call of {function}" if len(fqns) == 1 else f"the {len(fqns)} calls of {function}"
    if set(callers) == {OUTSIDE}:
        return f"{what} outside of forward"
    named = [caller for caller in callers if caller]
    return f"{what} in {name_patterns(named)}" if named else f"{what} in the model's forward"


def _quote(pattern: str) -> str:
    if pattern.startswith(f"{OUTSIDE}:"):
        return f"{_quote(pattern.partition(':')[2])} outside of forward"
    plain = pattern.replace("`", "'")
    return f"`{plain}`"


def join_phrases(phrases: Sequence[str]) -> str:
    """Phrases as a list in a sentence.

    Args:
        phrases: any number of them.

    Example:
        >>> join_phrases(["a"]), join_phrases(["a", "b"]), join_phrases(["a", "b", "c"])
        ('a', 'a and b', 'a, b and c')
    """
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def name_owners(params: Iterable[Param]) -> tuple[str, ...]:
    """Names of the modules that hold parameters, each once.

    Args:
        params: in the order in which they are to be named; one without a module names itself.

    Example:
        >>> name_owners([Param("fc.weight", "fc"), Param("fc.bias", "fc"), Param("scale")])
        ('fc', 'scale')
    """
    return tuple(dict.fromkeys(param.module or param.fqn for param in params))


def count_params(params: Sequence[Param]) -> str:
    """Number of parameters, and the first of them.

    Args:
        params: at least one.

    Example:
        >>> count_params([Param("fc.weight"), Param("fc.bias")])
        '2 parameters, first fc.weight'
    """
    plural = "" if len(params) == 1 else "s"
    return f"{len(params)} parameter{plural}, first {params[0].fqn}"
