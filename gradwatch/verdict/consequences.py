"""Findings that only say again what another finding explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import reach
from gradwatch.verdict.findings import Finding

_TAKES_THE_SIGNAL = ("weight_scale", "depth", "learning_rate")
"""Causes of a lack of gradient that leave the units behind it with next to no input."""

_BREAKS_STEPS = ("loss_sign", "not_cleared")
"""Causes of steps that are too large, or lead to where they are."""


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
    """Gradients that pile up, or that raise the loss, break a run as too high a rate does.

    Args:
        findings: of the verdict.

    Returns:
        The same findings, those without a better cause with that one and its remedy.
    """
    source = next((finding for finding in findings if finding.cause in _BREAKS_STEPS), None)
    if source is None:
        return list(findings)
    return [
        replace(finding, cause=source.cause, remedy=source.remedy)
        if finding.cause in (None, "learning_rate")
        else finding
        for finding in findings
    ]


def inherit_lack(findings: Sequence[Finding], reading: Reading) -> list[Finding]:
    """Units behind layers that shrink the signal are as good as constant: that is why they rest.

    What the weights, a factor or the length of a chain takes from the gradient on its way back, it
    takes from the signal on its way there; a bias alone decides then whether a unit fires. So it is
    where steps that were too large have broken the same stretch.

    Args:
        findings: of the verdict.
        reading: of the newest record.

    Returns:
        The same findings; dead units on the way of such a lack have its cause and remedy.
    """
    findings = _drop_repeated(findings)
    lack = next((finding for finding in findings if finding.kind == "vanishing"), None)
    if lack is None or lack.cause not in _TAKES_THE_SIGNAL:
        return findings
    layers, topology = reading.topology.layers, reading.topology
    named = {i for i, layer in enumerate(layers) if layer.fqn in lack.layers}
    inside = {layer.fqn for layer in layers if layer.fqn.partition(":")[0] in lack.layers}
    ahead = inside | {layers[i].fqn for i in reach(named, lambda index: topology.consumers[index])}
    return [
        replace(finding, cause=lack.cause, remedy=lack.remedy)
        if _may_follow(finding, lack) and _are_activations_in(finding, ahead, reading)
        else finding
        for finding in findings
    ]


def _drop_repeated(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out early time steps that steps have cut off, where the layer itself stands still."""
    lacks = [f for f in findings if f.kind == "vanishing" and f.cause == "learning_rate"]
    whole = {name for finding in lacks if finding.code == "GW101" for name in finding.layers}
    said = [f for f in lacks if f.code == "GW102" and whole.issuperset(f.layers)]
    return [finding for finding in findings if finding not in said]


def _may_follow(finding: Finding, lack: Finding) -> bool:
    """Units without a signal die; they are sure without one only where steps have made them so."""
    is_sure = finding.kind == "saturated" and finding.cause == "saturation"
    is_dead = finding.kind == "dead" and finding.cause == "dead_units"
    return is_dead or (is_sure and lack.cause == "learning_rate")


def _are_activations_in(finding: Finding, names: set[str], reading: Reading) -> bool:
    roles = {layer.fqn: layer.role for layer in reading.topology.layers}
    acts = [name for name in finding.layers if roles.get(name) == "activation"]
    return bool(acts) and names.issuperset(acts)


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
