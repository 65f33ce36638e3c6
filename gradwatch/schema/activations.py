"""Every activation function, one row each: what calls it, how steep it is, where it is flat.

Capture, evidence, verdict, remedies and pictures read these rows and keep no list of their own:
an activation is added by adding its row. Sources: the definitions in the PyTorch documentation of
``torch.nn.functional``; for initialisations LeCun et al. (1998), Glorot & Bengio (2010), He et al.
(2015) and Klambauer et al. (2017).

Derivatives use only methods and operators of the tensors they are handed, so that nothing here
needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Curve = Callable[[Values], Values]
Options = dict[str, Any]
Derivative = Callable[[Any, Any, Options], Any]

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

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""Klambauer et al. (2017), section 2."""


@dataclass(frozen=True)
class Activation:
    """One activation function phi.

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
    """The one spelling under which names are compared: ``"logsigmoid"`` for ``"LogSigmoid"``."""
    return name.lower().replace("_", "")


def find_activation(layer_type: str) -> Activation | None:
    """The row of a class or function name such as ``"LeakyReLU"`` or ``"leaky_relu_"``.

    Args:
        layer_type: as in ``Layer.type``.
    """
    return _BY_SPELLING.get(spell(layer_type))


def choose_scheme(layer_type: str) -> tuple[str, float]:
    """Initialisation and gain for a weight, given the activation behind it.

    Args:
        layer_type: class or function name; ``""`` where no activation follows.

    Returns:
        ``HE``, ``XAVIER`` or ``LECUN``, and the factor of its standard deviation.
    """
    if not layer_type:
        return LECUN, 1.0
    row = find_activation(layer_type)
    return (HE, RECTIFIER_GAIN) if row is None else (row.scheme, row.gain)


# Derivatives --------------------------------------------------------------------------------------


def _step(y: Any) -> Any:
    return (y > 0).to(y.dtype)


def _where_positive(y: Any, positive: float, rest: Any) -> Any:
    return rest.masked_fill(y > 0, positive)


def _bounded(low: float, high: float) -> Derivative:
    def derive(_x: Any, y: Any, options: Options) -> Any:
        inside = (y > options.get("min_val", low)) & (y < options.get("max_val", high))
        return inside.to(y.dtype)

    return derive


def _leaky_relu(_x: Any, y: Any, options: Options) -> Any:
    slope = float(options.get("negative_slope", 0.01))
    return _where_positive(y, 1.0, y.new_full(y.shape, slope))


def _gelu(x: Any, _y: Any, _: Options) -> Any:
    density = (-0.5 * x * x).exp() / math.sqrt(2 * math.pi)
    return (0.5 * (1 + (x / math.sqrt(2)).erf()) + x * density).abs()


def _silu(x: Any, _y: Any, _: Options) -> Any:
    gate = x.sigmoid()
    return (gate * (1 + x * (1 - gate))).abs()


def _mish(x: Any, _y: Any, _: Options) -> Any:
    softplus = x.clamp(min=0) + (-x.abs()).exp().log1p()
    inner = softplus.tanh()
    return (inner + x * x.sigmoid() * (1 - inner * inner)).abs()


def _hardswish(x: Any, _y: Any, _: Options) -> Any:
    return ((2 * x + 3) / 6).masked_fill(x >= 3, 1.0).masked_fill(x <= -3, 0.0).abs()


def _quotient(x: Any, y: Any, _: Options) -> Any:
    return (y / x).masked_fill(x == 0, 1.0).abs()


def _softmax(_x: Any, y: Any, _: Options) -> Any:
    return y * (1 - y)


def _beyond(_x: Any, y: Any, _: Options) -> Any:
    return (y != 0).to(y.dtype)


# Curves -------------------------------------------------------------------------------------------

_erf = np.vectorize(math.erf, otypes=[np.float64])
_SHRINKAGE = 0.5  # torch's default lambda


def _draw_sigmoid(z: Values) -> Values:
    values: Values = 1 / (1 + np.exp(-z))
    return values


def _draw_softplus(z: Values) -> Values:
    return np.logaddexp(0, z)


def _draw_elu(z: Values, alpha: float = 1.0) -> Values:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def _draw_relu(z: Values) -> Values:
    return np.maximum(z, 0)


# What a call amounts to ---------------------------------------------------------------------------


def _resolve_hardtanh(options: Options) -> str:
    """From 0 on it is a bounded ReLU, as ``nn.ReLU6`` has it."""
    return "relu6" if options.get("min_val", -1.0) == 0 else "hardtanh"


def _resolve_leaky_relu(options: Options) -> str:
    return "relu" if options.get("negative_slope", 0.01) == 0 else "leaky_relu"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _resolve_clamp(options: Options) -> str:
    """A rectifier where it cuts at zero and nowhere else."""
    low, high = options.get("min"), options.get("max")
    return "clamp" if high is None and _is_number(low) and low == 0 else ""


def _resolve_clamp_min(options: Options) -> str:
    return "clamp_min" if _resolve_clamp(options) else ""


def _resolve_threshold(options: Options) -> str:
    """What does not pass it is 0, and all that does is above."""
    low, value = options.get("threshold"), options.get("value")
    is_known = _is_number(low) and _is_number(value)
    return "threshold" if is_known and value == 0 and low >= 0 else ""  # type: ignore[operator]


# Rows ---------------------------------------------------------------------------------------------


def _rectifier(name: str, **facts: Any) -> Activation:
    """A row that is ``max(x, 0)``, or that with a bound."""
    known: dict[str, Any] = {"functions": (name,), "rectifies": True, "curve": _draw_relu, **facts}
    return Activation(name, "zero", known.pop("derivative", lambda x, y, _: _step(y)), **known)


_ROWS = (
    Activation(
        "sigmoid", "both", lambda x, y, _: y * (1 - y), _draw_sigmoid, 0.25,
        modules=("Sigmoid",), functions=("sigmoid", "expit"),
        scheme=XAVIER, gain=4.0,  # Glorot & Bengio (2010)
    ),
    Activation(
        "tanh", "both", lambda x, y, _: 1 - y * y, np.tanh,
        modules=("Tanh",), functions=("tanh",),
        scheme=XAVIER, gain=5 / 3,  # LeCun et al. (1998), section 4.4
    ),
    Activation(
        "softsign", "both", lambda x, y, _: (1 - y.abs()).square(), lambda z: z / (1 + np.abs(z)),
        modules=("Softsign",), functions=("softsign",), scheme=XAVIER, gain=1.0,
    ),
    Activation(
        "hardsigmoid", "both", lambda x, y, _: ((y > 0) & (y < 1)).to(y.dtype) / 6,
        lambda z: np.clip(z / 6 + 0.5, 0, 1), 1 / 6,
        modules=("Hardsigmoid",), functions=("hardsigmoid",), options=("inplace",),
        scheme=XAVIER, gain=6.0,
    ),
    Activation(
        "hardtanh", "both", _bounded(-1.0, 1.0), lambda z: np.clip(z, -1, 1),
        modules=("Hardtanh",), functions=("hardtanh",),
        options=("min_val", "max_val", "inplace"), resolve=_resolve_hardtanh,
        scheme=XAVIER, gain=1.0,
    ),
    Activation(
        "softmax", "both", _softmax, None, 0.25,
        modules=("Softmax", "Softmin", "Softmax2d"), functions=("softmax", "softmin"),
        options=("dim",), is_elementwise=False, scheme=XAVIER, gain=1.0,
    ),
    Activation(
        "logsigmoid", "one", lambda x, y, _: -y.expm1(), lambda z: -_draw_softplus(-z),
        modules=("LogSigmoid",), functions=("logsigmoid",), scheme=XAVIER, gain=2.0,
    ),
    Activation(
        "softplus", "one", lambda x, y, o: -(-float(o.get("beta", 1.0)) * y).expm1(),
        _draw_softplus,
        modules=("Softplus",), functions=("softplus",), options=("beta", "threshold"),
    ),
    Activation(
        "elu", "one",
        lambda x, y, o: _where_positive(y, 1.0, y + float(o.get("alpha", 1.0))), _draw_elu,
        modules=("ELU",), functions=("elu",), options=("alpha", "inplace"),
    ),
    Activation(
        "celu", "one",
        lambda x, y, o: _where_positive(y, 1.0, y / float(o.get("alpha", 1.0)) + 1), _draw_elu,
        modules=("CELU",), functions=("celu",), options=("alpha", "inplace"),
    ),
    Activation(
        "selu", "one",
        lambda x, y, _: _where_positive(y, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA),
        lambda z: SELU_SCALE * _draw_elu(z, SELU_ALPHA), SELU_SCALE * SELU_ALPHA,
        modules=("SELU",), functions=("selu",), options=("inplace",), scheme=LECUN, gain=1.0,
    ),
    Activation(
        "gelu", "one", _gelu, lambda z: z * 0.5 * (1 + _erf(z / math.sqrt(2))), 1.13,
        modules=("GELU",), functions=("gelu",), needs_input=True,
    ),
    Activation(
        "silu", "one", _silu, lambda z: z * _draw_sigmoid(z), 1.1,
        modules=("SiLU",), functions=("silu",), options=("inplace",), needs_input=True,
    ),
    Activation(
        "mish", "one", _mish, lambda z: z * np.tanh(_draw_softplus(z)), 1.09,
        modules=("Mish",), functions=("mish",), options=("inplace",), needs_input=True,
    ),
    Activation(
        "hardswish", "one", _hardswish, lambda z: z * np.clip(z / 6 + 0.5, 0, 1), 1.5,
        modules=("Hardswish",), functions=("hardswish",), options=("inplace",), needs_input=True,
    ),
    _rectifier("relu", modules=("ReLU",), options=("inplace",)),
    _rectifier(
        "relu6", modules=("ReLU6",), options=("inplace",), derivative=_bounded(0.0, 6.0),
        curve=lambda z: np.clip(z, 0, 6),
    ),
    _rectifier(
        "threshold", modules=("Threshold",), options=("threshold", "value", "inplace"),
        resolve=_resolve_threshold,
    ),
    _rectifier(
        "clamp", functions=("clamp", "clip"), options=("min", "max"), resolve=_resolve_clamp
    ),
    _rectifier("clamp_min", options=("min",), resolve=_resolve_clamp_min),
    Activation(
        "leaky_relu", "nowhere", _leaky_relu, lambda z: np.where(z > 0, z, 0.01 * z),
        modules=("LeakyReLU",), functions=("leaky_relu",), options=("negative_slope", "inplace"),
        resolve=_resolve_leaky_relu, rectifies=True,
    ),
    Activation(
        "prelu", "nowhere", _quotient, lambda z: np.where(z > 0, z, 0.25 * z),
        modules=("PReLU",), functions=("prelu",), options=("weight",), needs_input=True,
    ),
    Activation(
        "rrelu", "nowhere", _quotient, lambda z: np.where(z > 0, z, (1 / 8 + 1 / 3) / 2 * z),
        modules=("RReLU",), functions=("rrelu",),
        options=("lower", "upper", "training", "inplace"), needs_input=True,
    ),
    Activation(
        "tanhshrink", "middle", lambda x, y, _: (x - y).square(), lambda z: z - np.tanh(z),
        modules=("Tanhshrink",), functions=("tanhshrink",), needs_input=True,
    ),
    Activation(
        "softshrink", "middle", _beyond,
        lambda z: np.sign(z) * np.maximum(np.abs(z) - _SHRINKAGE, 0),
        modules=("Softshrink",), functions=("softshrink",), options=("lambd",),
    ),
    Activation(
        "hardshrink", "middle", _beyond, lambda z: np.where(np.abs(z) > _SHRINKAGE, z, 0),
        modules=("Hardshrink",), functions=("hardshrink",), options=("lambd",),
    ),
)  # fmt: skip

ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _ROWS}
"""All rows by name."""

_BY_SPELLING: dict[str, Activation] = {
    spell(name): row for row in _ROWS for name in (row.name, *row.modules, *row.functions)
}
