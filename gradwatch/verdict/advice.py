"""Cause -> what to change, and where: modules by type and pattern, as the layer set has them.

A sentence names what is at fault and nothing else: no weight that is frozen, no module that is
well, and no initialisation for what it was not made for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gradwatch.evidence.topology import Topology
from gradwatch.records import Layer
from gradwatch.schema.activations import Activation, find_activation, has_set_ends
from gradwatch.verdict.place import Place


def _replace_activations(place: Place) -> str:
    culprits = place.choose_activations(lambda row: row.squashes or row.flat == "middle")
    if not culprits:
        return (
            f"Replace the activations at and above {place.region} by ReLU and re-initialise the "
            "weights before them with He; or add BatchNorm or LayerNorm, or residual connections."
        )
    feeding = place.describe(place.find_feeding(culprits))
    start = f" and re-initialise {feeding} with He" if feeding else ""
    with_scale = ", with what scales its input," if place.are_wrapped(culprits) else ""
    return (
        f"Replace {place.describe(culprits)}{with_scale} by ReLU{start}; or keep the activations "
        "and add BatchNorm or LayerNorm before them, or residual connections."
    )


def _initialise(place: Place) -> str:
    if place.weights:
        scheme = place.name_scheme(place.weights)
        return f"Re-initialise {place.describe_weights()} with {scheme}{_or_factor(place)}."
    if place.frozen:
        return (
            f"Scale up what {place.describe(place.frozen)} returns: its weight is frozen, and lets "
            "almost none of the gradient through."
        )
    return (
        f"Re-initialise {place.region} so that the signal keeps its scale, and look for a constant "
        "factor in forward that shrinks it or blows it up."
    )


def _or_factor(place: Place) -> str:
    """Where the weights were measured and are to blame, nothing else needs to be looked for."""
    if place.faults:
        return ""
    return ", and look for a constant factor in forward that shrinks or blows up the signal"


def _desaturate(place: Place) -> str:
    saturated = place.activations if place.faults else place.choose_activations(_can_saturate)
    outputs = [layer for layer in saturated if layer.is_head]
    if any(_mixes(layer) for layer in saturated if layer not in outputs):
        return _open_attention(place, saturated)
    if outputs:
        return _open_outputs(place, outputs)
    if not saturated:
        return (
            f"Normalise what comes into the activations at {place.region}: BatchNorm or LayerNorm "
            "before them, or weights of Xavier's scale with a bias of 0."
        )
    where = place.describe(saturated)
    if all(has_set_ends(layer.type) for layer in saturated):
        return (
            f"Move the ends of the clamp at {where} apart, or divide what comes into it by its own "
            "size, so that most values lie between them; or let the gradient past it, as in "
            "x + (x.clamp(a, b) - x).detach()."
        )
    start = _start_afresh(place, saturated)
    return (
        f"{start}, so that {_say_steep(saturated)} at {where}; BatchNorm or LayerNorm right before "
        "keeps it there."
    )


def _can_saturate(row: Activation) -> bool:
    return row.flat in ("both", "one")


def _say_steep(saturated: Sequence[Layer]) -> str:
    rows = [find_activation(layer.type) for layer in saturated]
    if any(row is not None and row.flat == "one" and not row.squashes for row in rows):
        return "z lies around 0"
    return "|z| stays below about 2"


def _start_afresh(place: Place, activations: Sequence[Layer]) -> str:
    """Where the inputs of these activations get their scale and shift from."""
    shifts = place.find_shifts(activations)
    if shifts:
        return f"Set the shift (bias) of {place.describe(shifts)} to 0 and its scale to 1"
    feeding = place.find_feeding(activations)
    if not feeding:
        return "Scale and shift what comes into them"
    scheme = place.name_scheme(feeding)
    start = f"e-initialise {place.describe(feeding)} with {scheme} and a bias of 0"
    if not place.is_first(feeding):
        return f"R{start}"
    return f"Normalise the inputs where they are far from mean 0 and size 1, and r{start}"


def _mixes(layer: Layer) -> bool:
    row = find_activation(layer.type)
    return layer.fqn.endswith(":attention") or (row is not None and not row.is_elementwise)


def _open_attention(place: Place, saturated: Sequence[Layer]) -> str:
    feeding = place.describe(place.find_feeding(saturated))
    if feeding and not any(_is_of_pairs(layer) for layer in saturated):
        return (
            f"Re-initialise {feeding} small with a bias of 0, so that {place.describe(saturated)} "
            "does not begin one-hot, and normalise what it takes in; where it chooses among "
            "experts, a load-balancing loss keeps all of them open."
        )
    weights = f" and re-initialise {feeding} with Xavier" if feeding else ""
    return (
        f"Divide the scores by the root of the head's width{weights}, so that the softmax does not "
        "begin one-hot; LayerNorm on queries and keys keeps the scores small."
    )


def _is_of_pairs(layer: Layer) -> bool:
    """Whether it is a softmax over products of queries and keys, and not over a layer's output."""
    return layer.fqn.endswith(":attention") or len(layer.inputs) != 1


def _open_outputs(place: Place, outputs: Sequence[Layer]) -> str:
    where = place.describe(outputs)
    feeding = place.describe(place.find_feeding(outputs)) or "the weights before it"
    if not any(layer.type.lower() in _OF_LOGITS for layer in outputs):
        return (
            f"Scale the targets into the range that {where} reaches, and re-initialise {feeding} "
            "small with a bias of 0, so that the outputs begin within it; normalise inputs that "
            "are far from mean 0 and size 1; or take it away where nothing asks for limits."
        )
    return (
        f"Compute the loss from what comes before {where} (cross_entropy and "
        f"binary_cross_entropy_with_logits take it so); or re-initialise {feeding} small with a "
        "bias of 0 and scale the targets into the range that it reaches."
    )


_OF_LOGITS = frozenset(("sigmoid", "softmax", "softmax2d", "log_softmax", "logsoftmax"))
"""Activations that a loss of PyTorch's has built in."""


def _revive(place: Place) -> str:
    silent = place.choose_activations(lambda row: row.can_die)
    if not silent:
        return (
            f"Replace the rectifiers at {place.region} by LeakyReLU or GELU, or normalise before "
            "them."
        )
    if all(layer.is_head for layer in silent):
        return (
            f"Take {place.describe(silent)} away from the outputs, or use softplus in its place: "
            "it returns 0 for every sample, with no slope, and nothing below 0 at all, so look at "
            "the targets' range as well."
        )
    start = _start_afresh(place, silent)
    return (
        f"{start}; or replace {place.describe(silent)} by LeakyReLU or GELU, or normalise right "
        "before."
    )


def _shorten(place: Place) -> str:
    return (
        f"Add residual connections around {place.describe_weights()}"
        f"{_say_branch(len(place.weights))}, or BatchNorm or LayerNorm between them, or use fewer "
        "of them."
    )


def _say_branch(count: int) -> str:
    """Branches that add up to about the stream's own size: 1 / sqrt(n) of each.

    Source: Hayou et al. (2021), "Stable ResNet".
    """
    return f" (as x + {count**-0.5:.2g} * f(x) with {count} of them)" if count > 1 else ""


def _calm_sums(place: Place) -> str:
    """A chain with skips whose sums grow from block to block."""
    if not (place.topology and place.topology.has_joins):
        return f"Put BatchNorm or LayerNorm between {place.describe_weights()}, or use fewer."
    count = sum(len(layer.inputs) > 1 for layer in place.topology.layers)
    return (
        f"Scale the branches down before they are added at {place.region}{_say_branch(count)} or "
        "begin their last layers at zero, and see that each input is added only once; or normalise "
        "behind the additions."
    )


def _bridge_time(place: Place) -> str:
    change = (
        f"Let the gates of {place.region} begin open, with a forget (in a GRU: update) bias of "
        "about log(T) for T time steps, such as 3 for 20 and 4 for 60"
        if place.has_gates
        else f"Use an LSTM or GRU, or an orthogonal recurrent matrix, for {place.region}"
    )
    return f"{change}; shorten the way back through time, or add attention or skips over time."


def _tame_time(place: Place) -> str:
    return (
        f"Begin with an orthogonal recurrent matrix of gain 1 for {place.region}, or use an LSTM "
        "or GRU; clip gradients, or shorten the way back through time."
    )


_BY_CAUSE: dict[str, Callable[[Place], str]] = {
    "activation_derivative": _replace_activations,
    "weight_scale": _initialise,
    "saturation": _desaturate,
    "dead_units": _revive,
    "depth": _shorten,
    "precision": lambda place: (
        f"Scale the loss (torch.amp.GradScaler), or use bfloat16 for {place.region}, and keep "
        "small losses and reductions in float32."
    ),
    "weight_decay": lambda place: (
        f"Lower the weight decay (in the optimizer, or as a penalty in the loss): it has taken "
        f"{place.describe_weights()} away faster than the gradient builds them; 1e-4 to 1e-2 is "
        "usual."
    ),
    "disconnected": lambda place: (
        f"Look between {place.region} and the loss for .detach(), torch.no_grad(), .item(), "
        ".data, argmax or a comparison, and for a factor of 0; freeze the parameters on purpose if "
        "that is meant."
    ),
    "through_time": _bridge_time,
    "learning_rate": lambda place: (
        f"Lower the learning rate, warm it up, or clip gradients: {place.region} broke under "
        "steps that were too large."
    ),
}

_BY_KIND: dict[str, Callable[[Place], str]] = {
    "nonfinite": lambda place: (
        f"Look at {place.region} first: guard log, sqrt and divisions with an epsilon, check the "
        "input batch for NaN, and find the operation with "
        "torch.autograd.set_detect_anomaly(True)."
    ),
    "exploding": lambda place: (
        f"Lower the scale of the weights at {place.region}, clip gradients, add normalisation."
    ),
}

_BY_BOTH: dict[tuple[str, str], Callable[[Place], str]] = {
    ("exploding", "depth"): _calm_sums,
    ("exploding", "through_time"): _tame_time,
    ("nonfinite", "precision"): lambda place: (
        f"Compute {place.region} in float32 or bfloat16: its values leave the range of float16, "
        "which ends at 65,504."
    ),
}
"""Where a cause asks for something else in one kind of finding than in the others."""


def suggest_remedy(
    kind: str,
    cause: str | None,
    layers: Sequence[str],
    topology: Topology | None = None,
    faults: Sequence[str] = (),
) -> str:
    """The standard remedy for a cause, naming the modules it takes hold of.

    Args:
        kind: of the finding; decides when there is no cause.
        cause: a name in ``schema.kinds.CAUSES``, or ``None``.
        layers: fully qualified names of the finding, worst first.
        topology: of the network; without it only the layers can be named.
        faults: keys of the layers to blame, which alone a remedy changes; empty: not known.

    Returns:
        One sentence or two.

    Example:
        >>> suggest_remedy("exploding", None, ["fc1", "fc2"])
        'Lower the scale of the weights at `fc1` and `fc2`, clip gradients, add normalisation.'
    """
    place = Place(tuple(layers), topology, tuple(faults))
    found = _BY_BOTH.get((kind, cause or "")) or _BY_CAUSE.get(cause or "") or _BY_KIND.get(kind)
    return found(place) if found else f"Look at {place.region}."
