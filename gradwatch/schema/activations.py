"""Every activation function, one row each: what calls it, how steep it is, where it is flat.

Capture, evidence, verdict, remedies and pictures read these rows and keep no list of their own:
an activation is added by adding its row. Sources of the initialisations: LeCun et al. (1998),
Glorot & Bengio (2010), He et al. (2015) and Klambauer et al. (2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gradwatch.schema import call_meanings, curves, derivatives
from gradwatch.schema import piecewise_derivatives as piecewise
from gradwatch.schema.curves import Curve
from gradwatch.schema.derivatives import Derivative, Options

Flat = Literal["both", "one", "zero", "middle", "nowhere"]
"""Far out on both sides; far out on one; exactly 0 on one side, so that a unit that stays there
gets no gradient at all; around 0 and not far out; nowhere."""

SATURATION_SHARE = 0.05
"""An element is saturated where ``|phi'|`` is below this share of its maximum."""

HE, XAVIER, LECUN = "He", "Xavier", "LeCun"
"""Initialisations: He et al. (2015), section 2.2; Glorot & Bengio (2010), section 4.2; LeCun et al.
(1998), section 4.6."""

RECTIFIER_GAIN = math.sqrt(2.0)
"""Makes up for the half that a rectifier drops (He et al. 2015, section 2.2)."""


@dataclass(frozen=True)
class Activation:
    """One activation function phi.

    Example:
        >>> import torch
        >>> row = find_activation("Sigmoid")
        >>> row.flat, row.maximum, row.scheme
        ('both', 0.25, 'Xavier')
        >>> row.derivative(None, torch.tensor([0.5, 1.0]), {}).tolist()  # of the outputs
        [0.25, 0.0]

    Attributes:
        name: as in ``torch.nn.functional``; a call as a function is named so.
        flat: where ``|phi'|`` is next to nothing.
        derivative: ``|phi'|`` elementwise, from ``(x, y, options)``: input, output and the call's
            arguments by name. ``x`` is the output too unless ``needs_input``. It is taken from the
            output wherever that determines it, so that an activation in place is measured right.
        curve: phi with torch's default arguments, on numpy arrays; ``None``: it is not drawn.
        maximum: largest value of ``|phi'|`` at default arguments.
        modules: classes of ``torch.nn`` that are it and nothing else.
        functions: names in ``torch.nn.functional``, ``torch``, ``torch.special`` and of tensor
            methods, without the underscore of calls in place.
        options: names of the positional arguments behind the input.
        resolve: name of the row that a call amounts to, given its arguments; ``""``: no activation.
        needs_input: the output alone does not determine the derivative.
        rectifies: off, or all but off, for about half of its inputs by design.
        has_set_ends: whoever calls it has set where it ends: values beyond are meant.
        is_log: its output, or minus it, is the logarithm of a share, as that of a gate.
        is_elementwise: each output depends on one input; else it is no nonlinearity of a weight.
        scheme: initialisation that suits the weight before it.
        gain: factor of that initialisation; with Xavier it makes up for the slope at 0, so that W
            times phi' is about 1.
    """

    name: str
    flat: Flat
    derivative: Derivative
    curve: Curve | None = None
    maximum: float = 1.0
    modules: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    resolve: Callable[[Options], str] | None = None
    needs_input: bool = False
    rectifies: bool = False
    has_set_ends: bool = False
    is_log: bool = False
    is_elementwise: bool = True
    scheme: str = HE
    gain: float = RECTIFIER_GAIN

    @property
    def can_die(self) -> bool:
        """ReLU family: a unit that never fires passes no gradient at all."""
        return self.flat == "zero"

    @property
    def squashes(self) -> bool:
        """Steep around 0 at most: each layer of it costs gradient, and Xavier fits the weights."""
        return self.scheme == XAVIER


def spell(name: str) -> str:
    """The one spelling under which names are compared.

    Args:
        name: of a class, a function or a method.

    Example:
        >>> spell("LogSigmoid")
        'logsigmoid'
    """
    return name.lower().replace("_", "")


def find_activation(layer_type: str) -> Activation | None:
    """The row of a class or function name such as ``"LeakyReLU"`` or ``"leaky_relu_"``.

    Args:
        layer_type: as in ``Layer.type``.

    Returns:
        The row; ``None`` where no activation is called so.

    Example:
        >>> find_activation("leaky_relu_").name
        'leaky_relu'
    """
    return _BY_SPELLING.get(spell(layer_type))


def has_set_ends(layer_type: str) -> bool:
    """Whether a class or function is a clamp, whose ends somebody has set.

    Args:
        layer_type: as in ``Layer.type``.

    Example:
        >>> has_set_ends("clip"), has_set_ends("Hardtanh")
        (True, False)
    """
    row = find_activation(layer_type)
    return row is not None and row.has_set_ends


def choose_scheme(layer_type: str) -> tuple[str, float]:
    """Initialisation and gain for a weight, given the activation behind it.

    Args:
        layer_type: class or function name; ``""`` where no activation follows.

    Returns:
        ``HE``, ``XAVIER`` or ``LECUN``, and the factor of its standard deviation.

    Example:
        >>> choose_scheme("Sigmoid"), choose_scheme("")
        (('Xavier', 4.0), ('LeCun', 1.0))
    """
    if not layer_type:
        return LECUN, 1.0
    row = find_activation(layer_type)
    return (HE, RECTIFIER_GAIN) if row is None else (row.scheme, row.gain)


def _rectifier(name: str, **facts: Any) -> Activation:
    """A row that is ``max(x, 0)``, or that with a bound."""
    known: dict[str, Any] = {
        "derivative": piecewise.derive_relu, "curve": curves.draw_relu,
        "functions": (name,), "rectifies": True,
    }  # fmt: skip
    return Activation(name, "zero", **{**known, **facts})


_ROWS = (
    Activation(
        "sigmoid", "both", derivatives.derive_sigmoid, curves.draw_sigmoid, 0.25,
        modules=("Sigmoid",), functions=("sigmoid", "expit"),
        scheme=XAVIER, gain=4.0,  # Glorot & Bengio (2010)
    ),
    Activation(
        "tanh", "both", derivatives.derive_tanh, np.tanh,
        modules=("Tanh",), functions=("tanh",),
        scheme=XAVIER, gain=5 / 3,  # LeCun et al. (1998), section 4.4
    ),
    Activation(
        "softsign", "both", derivatives.derive_softsign, lambda z: z / (1 + np.abs(z)),
        modules=("Softsign",), functions=("softsign",), scheme=XAVIER, gain=1.0,
    ),
    Activation(
        "hardsigmoid", "both", piecewise.derive_hardsigmoid,
        lambda z: np.clip(z / 6 + 0.5, 0, 1), 1 / 6,
        modules=("Hardsigmoid",), functions=("hardsigmoid",), options=("inplace",),
        scheme=XAVIER, gain=6.0,
    ),
    Activation(
        "hardtanh", "both", piecewise.bounded(-1.0, 1.0), lambda z: np.clip(z, -1, 1),
        modules=("Hardtanh",), functions=("hardtanh",),
        options=("min_val", "max_val", "inplace"), resolve=call_meanings.resolve_hardtanh,
        scheme=XAVIER, gain=1.0,
    ),
    Activation(
        "clip", "both", piecewise.derive_clip, lambda z: np.clip(z, -1, 1),
        functions=("clip",), options=("min", "max"), resolve=call_meanings.resolve_clamp,
        needs_input=True, has_set_ends=True, scheme=XAVIER, gain=1.0,
    ),
    Activation(
        "softmax", "both", derivatives.derive_softmax, None, 0.25,
        modules=("Softmax", "Softmin", "Softmax2d"), functions=("softmax", "softmin"),
        options=("dim",), is_elementwise=False, scheme=XAVIER, gain=1.0,
    ),
    Activation(
        "logsigmoid", "one", derivatives.derive_logsigmoid, lambda z: -curves.draw_softplus(-z),
        modules=("LogSigmoid",), functions=("logsigmoid",), scheme=XAVIER, gain=2.0,
        is_log=True,
    ),
    Activation(
        "softplus", "one", derivatives.derive_softplus, curves.draw_softplus,
        modules=("Softplus",), functions=("softplus",), options=("beta", "threshold"),
        is_log=True,
    ),
    Activation(
        "elu", "one", piecewise.derive_elu, curves.draw_elu,
        modules=("ELU",), functions=("elu",), options=("alpha", "inplace"),
    ),
    Activation(
        "celu", "one", piecewise.derive_celu, curves.draw_elu,
        modules=("CELU",), functions=("celu",), options=("alpha", "inplace"),
    ),
    Activation(
        "selu", "one", piecewise.derive_selu, curves.draw_selu,
        piecewise.SELU_SCALE * piecewise.SELU_ALPHA,
        modules=("SELU",), functions=("selu",), options=("inplace",), scheme=LECUN, gain=1.0,
    ),
    Activation(
        "gelu", "one", derivatives.derive_gelu, curves.draw_gelu, 1.13,
        modules=("GELU",), functions=("gelu",), needs_input=True,
    ),
    Activation(
        "silu", "one", derivatives.derive_silu, lambda z: z * curves.draw_sigmoid(z), 1.1,
        modules=("SiLU",), functions=("silu",), options=("inplace",), needs_input=True,
    ),
    Activation(
        "mish", "one", derivatives.derive_mish, lambda z: z * np.tanh(curves.draw_softplus(z)),
        1.09, modules=("Mish",), functions=("mish",), options=("inplace",), needs_input=True,
    ),
    Activation(
        "hardswish", "one", piecewise.derive_hardswish, lambda z: z * np.clip(z / 6 + 0.5, 0, 1),
        1.5, modules=("Hardswish",), functions=("hardswish",), options=("inplace",),
        needs_input=True,
    ),
    _rectifier("relu", modules=("ReLU",), options=("inplace",)),
    _rectifier(
        "relu6", modules=("ReLU6",), options=("inplace",), derivative=piecewise.bounded(0.0, 6.0),
        curve=lambda z: np.clip(z, 0, 6),
    ),
    _rectifier(
        "threshold", modules=("Threshold",), options=("threshold", "value", "inplace"),
        resolve=call_meanings.resolve_threshold,
    ),
    _rectifier(
        "clamp", functions=("clamp",), options=("min", "max"),
        resolve=call_meanings.resolve_clamp,
    ),
    _rectifier("clamp_min", options=("min",), resolve=call_meanings.resolve_clamp_min),
    Activation(
        "leaky_relu", "nowhere", piecewise.derive_leaky_relu, curves.draw_line(0.01),
        modules=("LeakyReLU",), functions=("leaky_relu",), options=("negative_slope", "inplace"),
        resolve=call_meanings.resolve_leaky_relu, rectifies=True,
    ),
    Activation(
        "prelu", "nowhere", piecewise.derive_piecewise, curves.draw_line(0.25),
        modules=("PReLU",), functions=("prelu",), options=("weight",), needs_input=True,
    ),
    Activation(
        "rrelu", "nowhere", piecewise.derive_piecewise, curves.draw_line((1 / 8 + 1 / 3) / 2),
        modules=("RReLU",), functions=("rrelu",),
        options=("lower", "upper", "training", "inplace"), needs_input=True,
    ),
    Activation(
        "tanhshrink", "middle", derivatives.derive_tanhshrink, lambda z: z - np.tanh(z),
        modules=("Tanhshrink",), functions=("tanhshrink",), needs_input=True,
    ),
    Activation(
        "softshrink", "middle", piecewise.derive_shrinkage, curves.draw_softshrink,
        modules=("Softshrink",), functions=("softshrink",), options=("lambd",),
    ),
    Activation(
        "hardshrink", "middle", piecewise.derive_shrinkage, curves.draw_hardshrink,
        modules=("Hardshrink",), functions=("hardshrink",), options=("lambd",),
    ),
)  # fmt: skip

ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _ROWS}
"""All rows by name."""

_BY_SPELLING: dict[str, Activation] = {
    spell(name): row for row in _ROWS for name in (row.name, *row.modules, *row.functions)
}
