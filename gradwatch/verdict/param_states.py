"""The state of each trainable parameter, from the evidence of the run and the findings."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from gradwatch.evidence.history import History
from gradwatch.evidence.progress import is_slow, shows_no_fall
from gradwatch.records import Param
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.coverage import (
    BY_DESIGN,
    LEARNS,
    NOT_JUDGED,
    UNHEALTHY,
    Coverage,
    ParamState,
)
from gradwatch.verdict.findings import Finding
from gradwatch.wording.phrases import say_no_fall


def measure_coverage(
    history: History,
    findings: Iterable[Finding],
    notes: Iterable[Finding],
    ignored: Iterable[str],
    thresholds: Thresholds,
) -> Coverage:
    """The state of each parameter after the records so far.

    Args:
        history: of the run.
        findings: of the verdict.
        notes: of the verdict; a parameter that one of them names is explained.
        ignored: layers of findings that are silenced by kind.
        thresholds: ``persistence`` records make evidence; ``allow_unjudged`` patterns waive it.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> history = make_history(make_record(step) for step in range(5))
        >>> [state.state for state in measure_coverage(history, (), (), (), Thresholds()).params]
        ['learns', 'learns']
    """
    if not history.count:
        return Coverage()
    params = history.latest.topology.params
    unhealthy = {name for finding in findings for name in finding.layers}
    explained = {name for note in notes if note.kind == "disconnected" for name in note.layers}
    explained |= set(ignored)
    counts = history.learning
    lack = "" if unhealthy else _lack_fall(history, thresholds)
    states = []
    for index, param in enumerate(params):
        if not (param.trainable and (param.optimized or param.replaced)):
            continue
        learned = int(counts.learned[index])
        if param.replaced and history.standstill.records[index] >= thresholds.persistence:
            learned = 0  # that was the tensor in whose place it stands
        seen = learned, int(counts.called[index])
        states.append(_judge(param, seen, unhealthy, explained, thresholds, lack))
    return Coverage(_let_follow(states, params), history.count)


def _judge(
    param: Param,
    seen: tuple[int, int],
    unhealthy: set[str],
    explained: set[str],
    thresholds: Thresholds,
    lack: str,
) -> ParamState:
    learned, called = seen
    state, reason = _find_state(param, learned, called, unhealthy, explained, thresholds)
    if state == LEARNS and lack and not _is_waived(param, thresholds):
        state, reason = NOT_JUDGED, lack
    return ParamState(param.fqn, state, reason, learned, len(param.shape) >= 2)


def _find_state(
    param: Param,
    learned: int,
    called: int,
    unhealthy: set[str],
    explained: set[str],
    thresholds: Thresholds,
) -> tuple[str, str]:
    names = {param.fqn, param.module} - {""}
    if names & unhealthy:
        return UNHEALTHY, "named by a finding"
    if learned >= thresholds.persistence:
        return LEARNS, ""
    if _is_waived(param, thresholds):
        return BY_DESIGN, "need not be judged"
    if called < thresholds.persistence:
        return BY_DESIGN, f"called at {called} sampled step{'' if called == 1 else 's'}"
    if names & explained:
        return BY_DESIGN, "explained by a note or ignored"
    if not param.optimized:
        return NOT_JUDGED, "no optimizer holds it"
    return NOT_JUDGED, f"seen to learn at {learned} of {called} sampled steps that used it"


def _is_waived(param: Param, thresholds: Thresholds) -> bool:
    waived = (*thresholds.allow_unjudged, *thresholds.ignore_layers)
    names = {param.fqn, param.module} - {""}
    return any(fnmatchcase(name, pattern) for name in names for pattern in waived)


def _lack_fall(history: History, thresholds: Thresholds) -> str:
    """Weights that move while the loss stays where it was: what they learn is not known."""
    if shows_no_fall(history):
        return f"moves, {say_no_fall(history.last_step)}"
    if is_slow(history, thresholds):
        return f"moves, but too little for the loss to fall by step {history.last_step:,}"
    return ""


def _let_follow(states: list[ParamState], params: tuple[Param, ...]) -> tuple[ParamState, ...]:
    """Biases and scales whose weight learns may be zero by construction, as before BatchNorm."""
    owners = {param.fqn: param.layer for param in params}
    learning = {owners[state.fqn] for state in states if state.state == LEARNS}
    return tuple(
        ParamState(state.fqn, BY_DESIGN, "follows its layer's weight", state.records, False)
        if state.state == NOT_JUDGED and not state.is_weight and owners[state.fqn] in learning
        else state
        for state in states
    )
