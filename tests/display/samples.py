"""Hand-made records and verdicts, so that the displays are tested without a training."""

from __future__ import annotations

import dataclasses

import numpy as np

from gradwatch.records import (
    GENERAL_STATISTICS,
    LAYER_STATISTICS,
    PARAM_STATISTICS,
    STEP_STATISTICS,
    Layer,
    LayerSet,
    Param,
    StepRecord,
)
from gradwatch.verdict.findings import Finding, LayerSummary, Verdict

HOSTILE_NAMES = (
    "a/b c",
    'it\'s "quoted"',
    "<script>alert(1)</script>",
    "[red]bold[/red]",
    "naïve.層.слой",
    "tick`|pipe|`tick",
    "\x1b[31mred\x1b[0m",
    "two\nlines",
    "[link](http://example.org)",
)


def make_layer_set(n_layers: int = 3, prefix: str = "net") -> LayerSet:
    """A chain of Linear and Sigmoid, with a weight for each Linear."""
    layers = tuple(
        Layer(
            f"{prefix}.{i}",
            role="activation" if i % 2 else "weight",
            type="Sigmoid" if i % 2 else "Linear",
            inputs=(i - 1,) if i else (),
        )
        for i in range(n_layers)
    )
    params = tuple(
        Param(f"{layer.fqn}.weight", module=layer.fqn, shape=(4, 4))
        for layer in layers
        if layer.role == "weight"
    )
    return LayerSet(layers, params)


def make_named_set(names: tuple[str, ...]) -> LayerSet:
    return LayerSet(tuple(Layer(name, role="weight", type="Linear") for name in names))


def make_record(
    global_step: int, layer_set: LayerSet | None = None, value: float = 1.0
) -> StepRecord:
    """A record whose numbers are ``value`` plus their place, so that a mix-up shows."""
    layer_set = layer_set or make_layer_set()
    sizes = (
        (len(LAYER_STATISTICS), len(layer_set.layers)),
        (len(PARAM_STATISTICS), len(layer_set.params)),
        (len(STEP_STATISTICS),),
    )
    layer_values, param_values, step_values = (
        value + np.arange(np.prod(size), dtype=np.float64).reshape(size) for size in sizes
    )
    plain = [i for i, layer in enumerate(layer_set.layers) if layer.role != "activation"]
    layer_values[len(GENERAL_STATISTICS) :, plain] = np.nan
    return StepRecord(global_step, layer_set, layer_values, param_values, step_values)


def with_histogram(record: StepRecord, **counts: list[float]) -> StepRecord:
    histograms = {key: np.asarray(values, dtype=np.float64) for key, values in counts.items()}
    return dataclasses.replace(record, histograms=histograms)


def make_finding(layers: tuple[str, ...] = ("net.0", "net.1"), **changes) -> Finding:
    finding = Finding(
        code="GW101",
        kind="vanishing",
        severity="critical",
        cause="activation_derivative",
        layers=layers,
        first_step=0,
        last_step=450,
        observed=2.6e-7,
        threshold=1e-3,
        message=(
            f"`{layers[0]}` gets 3.8 million times less gradient than the last layer: each "
            "Sigmoid multiplies it by 0.22, each weight matrix by 0.98."
        ),
        remedy="Replace the 11 Sigmoid modules `net.*.act` by ReLU and initialise with He.",
    )
    return dataclasses.replace(finding, **changes)


def make_layers(
    n_layers: int, n_flagged: int = 0, name: str = "net.{}"
) -> tuple[LayerSummary, ...]:
    """A chain of Linear and Sigmoid whose gradient falls towards the input, far where flagged."""
    decades = 8 if n_flagged else 1
    rows = []
    for i in range(n_layers):
        is_linear = i % 2 == 0
        rows.append(
            LayerSummary(
                fqn=name.format(i),
                type="Linear" if is_linear else "Sigmoid",
                role="weight" if is_linear else "activation",
                grad_ratio=10.0 ** (-decades * (n_layers - 1 - i) / max(n_layers - 1, 1)),
                gain=0.98 if is_linear else 0.22,
                saturated_fraction=float("nan") if is_linear else 0.031,
                dead_fraction=float("nan"),
                update_ratio=1.2e-3 if is_linear else float("nan"),
                flagged=i < n_flagged,
            )
        )
    return tuple(rows)


def make_verdict(n_layers: int = 24, n_flagged: int = 8, **changes) -> Verdict:
    layers = make_layers(n_layers, n_flagged)
    flagged = tuple(layer.fqn for layer in layers if layer.flagged)
    findings = (make_finding(flagged),) if flagged else ()
    verdict = Verdict(findings=findings, run="sigmoid", last_step=450, records=19, layers=layers)
    return dataclasses.replace(verdict, **changes)
