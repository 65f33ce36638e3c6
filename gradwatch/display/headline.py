"""What a person would say of a verdict in one sentence, as pieces that any display can dress.

Layer names are untrusted text, so a sentence is a sequence of ``Piece``: the display decides how
plain words and names are escaped and drawn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradwatch.display.coverage_words import say_healthy, say_not_judged
from gradwatch.schema.kinds import find_kind
from gradwatch.verdict.findings import Finding, LayerSummary, Verdict
from gradwatch.wording.phrases import LARGEST_WORD, name_number, name_percent

_WORTH_SAYING = 2.0  # a factor below two is not worth a headline of its own
_DETAILS = re.compile(r": |; | \(")  # what begins the details of a message
_ALIKE = (("weight", "recurrent"), ("activation",))  # roles whose layers are counted on their own
_MOST_STRETCHES = 3  # of neighbouring layers that a sentence lists


@dataclass(frozen=True)
class Piece:
    """Some words of a sentence; ``is_name`` marks the name of a layer."""

    text: str
    is_name: bool = False


Sentence = tuple[Piece, ...]


def name_group(
    layers: Sequence[str], order: Sequence[str], types: Mapping[str, str] | None = None
) -> Sentence:
    """Layers of a finding in forward order: ``fc1 to fc7``, ``fc1 to fc40 and fc42 to fc88``.

    More than three stretches of neighbours become ``9 layers from fc1 to fc88``.

    Args:
        layers: names, in any order.
        order: names of all layers in forward order; unknown ones come last.
        types: by name, such as ``"Linear"``, for layers whose name is a number.

    Example:
        >>> order = [f"fc{number}" for number in range(1, 9)]
        >>> "".join(piece.text for piece in name_group(["fc3", "fc1", "fc2", "fc8"], order))
        'fc1 to fc3 and fc8'
    """
    position = {name: index for index, name in enumerate(order)}
    ranked = sorted(dict.fromkeys(layers), key=lambda name: position.get(name, len(position)))
    if not ranked:
        return (Piece("the network"),)
    stretches = _split_stretches(ranked, position)
    if len(stretches) <= _MOST_STRETCHES:
        return _join_stretches(stretches, types or {})
    ends = (*_name(ranked[0], types), Piece(" to "), *_name(ranked[-1], types))
    return (Piece(f"{len(ranked):,} layers from "), *ends)


def _name(layer: str, types: Mapping[str, str] | None) -> Sentence:
    """A name; ``layer 0 (Linear)`` where it is a number, which alone would say nothing."""
    if not layer.isdigit():
        return (Piece(layer, True),)
    kind = (types or {}).get(layer)
    return (Piece("layer "), Piece(layer, True), *((Piece(f" ({kind})"),) if kind else ()))


def _list_types(verdict: Verdict) -> dict[str, str]:
    return {layer.fqn: layer.type for layer in verdict.layers}


def _split_stretches(names: Sequence[str], position: dict[str, int]) -> list[list[str]]:
    """Names whose places follow on each other, three at least; others stand alone."""
    runs: list[list[str]] = []
    for name in names:
        last = position.get(runs[-1][-1], -2) if runs else -2
        if position.get(name, -9) == last + 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    return [part for run in runs for part in ([run] if len(run) > 2 else [[x] for x in run])]


def _join_stretches(stretches: Sequence[Sequence[str]], types: Mapping[str, str]) -> Sentence:
    pieces: list[Piece] = []
    for index, names in enumerate(stretches):
        if index:
            pieces.append(Piece(" and " if index == len(stretches) - 1 else ", "))
        pieces += _name(names[0], types)
        if len(names) > 1:
            pieces += [Piece(" to "), *_name(names[-1], types)]
    return tuple(pieces)


def headline(verdict: Verdict) -> Sentence:
    """The verdict in one sentence; the worst finding leads.

    Args:
        verdict: of one run.
    """
    if not verdict.records and not verdict.unstepped:
        return (Piece("No training step has been recorded yet"),)
    if verdict.healthy:
        return (Piece(say_healthy(verdict)),)
    if not verdict.findings:
        return (Piece(say_not_judged(verdict)),)
    worst = verdict.findings[0]
    return _say(verdict, worst) or (Piece(main_clause(worst.message)),)


def weakest_ratio(verdict: Verdict) -> float:
    """The least gradient of all layers, relative to the strongest; 1 where none was measured.

    Args:
        verdict: of one run.
    """
    return min(
        (layer.grad_ratio for layer in verdict.layers if 0 < layer.grad_ratio < 1), default=1.0
    )


def main_clause(message: str) -> str:
    """A finding's message without its details.

    Args:
        message: of a finding.
    """
    return _DETAILS.split(message, maxsplit=1)[0].rstrip(".")


def _compare(verdict: Verdict, finding: Finding) -> Sentence:
    """``fc1 gets 3.8 million times less gradient than fc12``; empty where that cannot be said."""
    factor = _factor(finding.observed)
    if not factor < LARGEST_WORD:
        return _say_none(verdict, finding)
    if not factor >= _WORTH_SAYING:
        return ()
    words = f"{name_number(factor)} times less gradient than "
    types = _list_types(verdict)
    worst = _name(finding.layers[0], types)
    if finding.code == "GW102":
        return (Piece("the first time steps of "), *worst, Piece(f" get {words}the last ones"))
    full = _reference(verdict, finding)
    than = _name(full, types) if full else (Piece("the rest of the network"),)
    return (*worst, Piece(f" gets {words}"), *than)


def _say_none(verdict: Verdict, finding: Finding) -> Sentence:
    """Where no count means anything: ``fc1 to fc7 get no gradient at all``."""
    if not finding.observed < 1:
        return ()
    amount = "no gradient at all" if finding.observed <= 0 else "practically no gradient"
    get = "gets" if len(finding.layers) == 1 else "get"
    return (*say_region(verdict, finding), Piece(f" {get} {amount}"))


def _say_share(verdict: Verdict, finding: Finding) -> Sentence:
    """``62 % of the units of act4 never fire``."""
    roles = {layer.fqn: layer.role for layer in verdict.layers}
    act = next((layer for layer in finding.layers if roles.get(layer) == "activation"), None)
    if act is None or not 0 < finding.observed <= 1:
        return ()
    return (
        Piece(f"{name_percent(finding.observed)} of the units of "),
        *_name(act, _list_types(verdict)),
        Piece(f" {find_kind(finding.kind).units_do}"),
    )


def _say(verdict: Verdict, finding: Finding) -> Sentence:
    kind = find_kind(finding.kind)
    if not finding.layers:
        return ()
    if kind.compares:
        return _compare(verdict, finding)
    return _say_share(verdict, finding) if kind.units_do else ()


def say_region(verdict: Verdict, finding: Finding) -> Sentence:
    """Where a finding is, in the fewest names: activations where the finding is of their units.

    Args:
        verdict: whose layers give the order, the roles and the types.
        finding: of the same run.
    """
    roles = {layer.fqn: layer.role for layer in verdict.layers}
    acts = [layer for layer in finding.layers if roles.get(layer) == "activation"]
    names = acts if acts and find_kind(finding.kind).units_do else list(finding.layers)
    alike = next(
        (group for group in _ALIKE if all(roles.get(name) in group for name in names)), None
    )
    order = [name for name, role in roles.items() if not alike or role in alike]
    return name_group(names, order, _list_types(verdict))


def _factor(observed: float) -> float:
    """By how much the share that a rule observed is less than a whole."""
    return 1 / observed if observed > 0 and not math.isinf(observed) else math.nan


def _reference(verdict: Verdict, finding: Finding) -> str | None:
    """The layer that the worst one is measured against: the last full one further down."""
    names = [layer.fqn for layer in verdict.layers]
    if finding.layers[0] not in names:
        return None
    below = verdict.layers[names.index(finding.layers[0]) + 1 :]
    full = [layer.fqn for layer in below if _carries(layer) and layer.fqn not in finding.layers]
    return full[-1] if full else None


def _carries(layer: LayerSummary) -> bool:
    return layer.role in ("weight", "recurrent", "embedding") and layer.grad_ratio > 0


def since(finding: Finding, verdict: Verdict) -> str:
    """When it began and whether it is still so, in words.

    Args:
        finding: of the same run.
        verdict: whose last step tells whether it is still so.
    """
    began = say_begin(finding, verdict)
    if finding.last_step >= verdict.last_step:
        return f"{began}, still so at step {verdict.last_step:,}."
    return f"{began}, last seen at step {finding.last_step:,} of {verdict.last_step:,}."


def say_begin(finding: Finding, verdict: Verdict) -> str:
    """``"Since step 61"``, or ``"Began between steps 201 and 210"`` where none between was seen.

    Args:
        finding: of the same run.
        verdict: whose course tells the record before it; without one the step itself is named.
    """
    if finding.first_step <= verdict.first_step:
        return "Since the first step"
    before = max((step for step in verdict.course.steps if step < finding.first_step), default=-1)
    if before < 0 or before == finding.first_step - 1:
        return f"Since step {finding.first_step:,}"
    return f"Began between steps {before:,} and {finding.first_step:,}"


def write_headline(verdict: Verdict) -> str:
    """The headline as plain text.

    Args:
        verdict: of one run.
    """
    return "".join(piece.text for piece in headline(verdict))
