"""Findings that only say again what another finding explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import reach
from gradwatch.verdict.findings import Finding


def drop_consequences(findings: Sequence[Finding], reading: Reading) -> list[Finding]:
    """Leave out what gets no gradient because a recurrent layer has no unit left that fires.

    Such a layer is one call with its activations inside: the gradient arrives at it and ends there,
    and its own finding says why. What follows it is healthy.

    Args:
        findings: of the verdict.
        reading: of the newest record.

    Returns:
        Those that are left, in the same order.
    """
    walls = _find_dead_recurrent(findings, reading)
    if not walls:
        return list(findings)
    return [
        finding
        for finding in findings
        if finding.kind != "vanishing" or not _ends_at(finding, walls, reading)
    ]


def inherit_mishandling(findings: Sequence[Finding]) -> list[Finding]:
    """Gradients that pile up break a run as a rate that is too high does: that is their cause.

    Args:
        findings: of the verdict.

    Returns:
        The same findings, those without a better cause with that one and its remedy.
    """
    piled = next((finding for finding in findings if finding.cause == "not_cleared"), None)
    if piled is None:
        return list(findings)
    return [
        replace(finding, cause=piled.cause, remedy=piled.remedy)
        if finding.cause in (None, "learning_rate")
        else finding
        for finding in findings
    ]


def _find_dead_recurrent(findings: Sequence[Finding], reading: Reading) -> set[int]:
    named = {name for finding in findings if finding.kind == "dead" for name in finding.layers}
    layers = reading.topology.layers
    return {i for i, layer in enumerate(layers) if layer.role == "recurrent" and layer.fqn in named}


def _ends_at(finding: Finding, walls: set[int], reading: Reading) -> bool:
    """Whether the gradient of all its layers is zero, and above zero only from the walls on."""
    topology = reading.topology
    named = set(finding.layers)
    calls = {i for i, layer in enumerate(topology.layers) if layer.fqn in named}
    ahead = reach(calls, lambda index: () if index in walls else topology.consumers[index])
    return bool(ahead & walls) and not any(reading.grad[i] > 0 for i in ahead - walls)
