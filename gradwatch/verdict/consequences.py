"""Findings that only say again what another finding explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import reach
from gradwatch.verdict.findings import Finding


def drop_consequences(findings: Sequence[Finding], reading: Reading) -> list[Finding]:
    """Leave out what starves because a recurrent layer has no unit left that fires.

    Such a layer is one call with its activations inside: the gradient arrives at it and ends there,
    and its own finding says why. What follows it is well.
    """
    walls = _find_dead_recurrent(findings, reading)
    if not walls:
        return list(findings)
    return [one for one in findings if one.kind != "vanishing" or not _ends_at(one, walls, reading)]


def inherit_mishandling(findings: Sequence[Finding]) -> list[Finding]:
    """Gradients that pile up break a run as a rate that is too high does: that is their cause."""
    piled = next((one for one in findings if one.cause == "not_cleared"), None)
    if piled is None:
        return list(findings)
    return [
        replace(one, cause=piled.cause, remedy=piled.remedy)
        if one.cause in (None, "learning_rate")
        else one
        for one in findings
    ]


def _find_dead_recurrent(findings: Sequence[Finding], reading: Reading) -> set[int]:
    named = {name for one in findings if one.kind == "dead" for name in one.layers}
    layers = reading.topology.layers
    return {i for i, one in enumerate(layers) if one.role == "recurrent" and one.fqn in named}


def _ends_at(finding: Finding, walls: set[int], reading: Reading) -> bool:
    """Whether the gradient of all its layers is zero, and above zero only from the walls on."""
    topology = reading.topology
    named = set(finding.layers)
    calls = {i for i, one in enumerate(topology.layers) if one.fqn in named}
    ahead = reach(calls, lambda index: () if index in walls else topology.consumers[index])
    return bool(ahead & walls) and not any(reading.grad[i] > 0 for i in ahead - walls)
