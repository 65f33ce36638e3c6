"""What a person would say of a verdict in one sentence, as pieces that any display can dress.

Layer names are untrusted text, so a sentence is a sequence of ``Piece``: the display decides how
plain words and names are escaped and drawn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.display.coverage_words import say_healthy, say_not_judged
from gradwatch.schema.kinds import find_kind
from gradwatch.verdict.findings import Finding, LayerSummary, Verdict
from gradwatch.wording.phrases import name_number

_WORTH_SAYING = 2.0  # a factor below two is not worth a headline of its own
_DETAILS = re.compile(r": |; | \(")  # what begins the details of a message
_ALIKE = (("weight", "recurrent"), ("activation",))  # roles whose layers are counted on their own
_COUNT_AS_NONE = 1e15  # beyond this no count in words means anything to a reader


@dataclass(frozen=True)
class Piece:
    """Some words of a sentence; ``is_name`` marks the name of a layer."""

    text: str
    is_name: bool = False


Sentence = tuple[Piece, ...]


def name_group(layers: Sequence[str], order: Sequence[str]) -> Sentence:
    """Layers of a finding in forward order: ``fc1 to fc7``, or the first three and a count."""
    position = {name: index for index, name in enumerate(order)}
    ranked = sorted(dict.fromkeys(layers), key=lambda name: position.get(name, len(position)))
    if not ranked:
        return (Piece("the network"),)
    if len(ranked) > 2 and _is_run(ranked, position):
        return (Piece(ranked[0], True), Piece(" to "), Piece(ranked[-1], True))
    return _list_names(ranked)


def _is_run(names: Sequence[str], position: dict[str, int]) -> bool:
    places = [position.get(name, -1) for name in names]
    return places[0] >= 0 and places[-1] - places[0] == len(names) - 1


def _list_names(names: Sequence[str]) -> Sentence:
    pieces: list[Piece] = []
    shown = names[:3]
    for index, name in enumerate(shown):
        last = index == len(shown) - 1 and len(names) == len(shown)
        if index:
            pieces.append(Piece(" and " if last else ", "))
        pieces.append(Piece(name, True))
    if len(names) > len(shown):
        pieces.append(Piece(f" and {len(names) - len(shown)} more"))
    return tuple(pieces)


def headline(verdict: Verdict) -> Sentence:
    """The verdict in one sentence; the worst finding leads."""
    if not verdict.records:
        return (Piece("No training step has been recorded yet"),)
    if verdict.healthy:
        return (Piece(say_healthy(verdict)),)
    if not verdict.findings:
        return (Piece(say_not_judged(verdict)),)
    worst = verdict.findings[0]
    return _say(verdict, worst) or (Piece(main_clause(worst.message)),)


def weakest_ratio(verdict: Verdict) -> float:
    """The least gradient of all layers, relative to the fullest; 1 where none was measured."""
    return min((one.grad_ratio for one in verdict.layers if 0 < one.grad_ratio < 1), default=1.0)


def main_clause(message: str) -> str:
    """A finding's message without its details."""
    return _DETAILS.split(message, maxsplit=1)[0].rstrip(".")


def _compare(verdict: Verdict, finding: Finding) -> Sentence:
    """``fc1 gets 3.8 million times less gradient than fc12``; empty where that cannot be said."""
    less_or_more = find_kind(finding.kind).compares
    is_less = less_or_more == "less"
    factor = _factor(finding.observed, is_less)
    if is_less and not factor < _COUNT_AS_NONE:
        return _say_none(verdict, finding)
    if not _WORTH_SAYING <= factor < _COUNT_AS_NONE:
        return ()
    words = f"{name_number(factor)} times {less_or_more} gradient than "
    worst = Piece(finding.layers[0], True)
    if finding.cause == "through_time":
        ends = ("first", "last") if is_less else ("last", "first")
        of = Piece(f"the {ends[0]} time steps of ")
        return (of, worst, Piece(f" get {words}the {ends[1]} ones"))
    full = _reference(verdict, finding)
    than = Piece(full, True) if full else Piece("the rest of the network")
    return (worst, Piece(f" gets {words}"), than)


def _say_none(verdict: Verdict, finding: Finding) -> Sentence:
    """Where no count means anything: ``fc1 to fc7 get no gradient at all``."""
    if not finding.observed < 1:
        return ()
    amount = "no gradient at all" if finding.observed <= 0 else "practically no gradient"
    get = "gets" if len(finding.layers) == 1 else "get"
    return (*name_region(verdict, finding), Piece(f" {get} {amount}"))


def _say_share(verdict: Verdict, finding: Finding) -> Sentence:
    """``62 % of the units of act4 never fire``."""
    roles = {one.fqn: one.role for one in verdict.layers}
    act = next((one for one in finding.layers if roles.get(one) == "activation"), None)
    if act is None or not 0 < finding.observed <= 1:
        return ()
    share = math.floor(100 * finding.observed)
    return (
        Piece(f"{share} % of the units of "),
        Piece(act, True),
        Piece(f" {find_kind(finding.kind).units_do}"),
    )


def _say(verdict: Verdict, finding: Finding) -> Sentence:
    kind = find_kind(finding.kind)
    if not finding.layers:
        return ()
    if kind.compares:
        return _compare(verdict, finding)
    return _say_share(verdict, finding) if kind.units_do else ()


def name_region(verdict: Verdict, finding: Finding) -> Sentence:
    """Where a finding is, in the fewest names: activations where the finding is of their units."""
    roles = {one.fqn: one.role for one in verdict.layers}
    acts = [one for one in finding.layers if roles.get(one) == "activation"]
    names = acts if acts and find_kind(finding.kind).units_do else list(finding.layers)
    alike = next((one for one in _ALIKE if all(roles.get(name) in one for name in names)), None)
    return name_group(names, [name for name, role in roles.items() if not alike or role in alike])


def _factor(observed: float, is_less: bool) -> float:
    """The factor behind what a rule observed: a share when vanishing, a ratio when exploding."""
    if not observed > 0 or math.isinf(observed):
        return math.nan
    return 1 / observed if is_less else observed


def _reference(verdict: Verdict, finding: Finding) -> str | None:
    """The layer that the worst one is measured against: the last full one further down."""
    names = [one.fqn for one in verdict.layers]
    if finding.layers[0] not in names:
        return None
    below = verdict.layers[names.index(finding.layers[0]) + 1 :]
    full = [one.fqn for one in below if _carries(one) and one.fqn not in finding.layers]
    return full[-1] if full else None


def _carries(layer: LayerSummary) -> bool:
    return layer.role in ("weight", "recurrent", "embedding") and layer.grad_ratio > 0


def since(finding: Finding, verdict: Verdict) -> str:
    """When it began and whether it is still so, in words."""
    began = (
        "Since the first step"
        if finding.first_step <= verdict.first_step
        else f"Since step {finding.first_step:,}"
    )
    if finding.last_step >= verdict.last_step:
        return f"{began}, still so at step {verdict.last_step:,}."
    return f"{began}, last seen at step {finding.last_step:,} of {verdict.last_step:,}."


def write_headline(verdict: Verdict) -> str:
    """The headline as plain text."""
    return "".join(piece.text for piece in headline(verdict))
