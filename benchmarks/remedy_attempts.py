"""What is done to each unhealthy run, as a quote of its remedy and the change in code."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MethodType

import torch
from torch import Tensor, nn

from benchmarks.followers import (
    Follower,
    initialise,
    limit,
    raise_rate,
    replace_by_relu,
    reset_shifts,
    scale_rate,
    standardise,
)
from tests.zoo import Training, data, models
from tests.zoo.loops import adam, supervised
from tests.zoo.unhealthy_time import gate_bias


@dataclass(frozen=True)
class Attempt:
    """One remedy that is followed.

    Attributes:
        case: a run of the zoo, or a name of its own.
        quote: words that its printed remedy must hold: those that are followed.
        change: what is done, as a sentence.
        follow: does it; ``None``: the zoo has the run with exactly that line changed.
        build: the run, where that of the zoo differs from its good version in more than a remedy.
        good: a known good version, where the zoo does not have the run.
    """

    case: str
    quote: str
    change: str
    follow: Follower | None = None
    build: Callable[[], Training] | None = None
    good: Callable[[], Training] | None = None


def _scale_branches(training: Training, remedy: str) -> None:
    found = re.search(r"as x \+ ([\d.]+) \* f\(x\)", remedy)
    assert found  # what the quote of this attempt says
    scale = float(found[1])

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + scale * block(x)
        return self.head(x)

    training.model.forward = MethodType(forward, training.model)


def _use_bfloat16(training: Training, remedy: str) -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(x).float()

    training.model.forward = MethodType(forward, training.model)


def _make_orthogonal(training: Training, remedy: str) -> None:
    torch.manual_seed(0)
    for name, param in training.model.named_parameters():
        if "weight_hh" in name:
            nn.init.orthogonal_(param)


def _open_forget_gate(training: Training, remedy: str) -> None:
    rnn = training.model.get_submodule("rnn")
    hidden = int(rnn.hidden_size)
    for name, param in rnn.named_parameters():
        if name.startswith("bias_"):
            param.data[hidden : 2 * hidden] = 4.0 if name.startswith("bias_ih") else 0.0


def _begin_small(training: Training, remedy: str) -> None:
    layer = training.model.get_submodule("decode")
    torch.manual_seed(0)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)


def _scale_scores(training: Training, remedy: str) -> None:
    training.model.scale = 1 / 8  # 1 / sqrt(64), the head's width
    initialise(training, remedy)


def _take_factor_away(training: Training, remedy: str) -> None:
    training.model.factor = 1.0


def _raise_scale(training: Training, remedy: str) -> None:
    training.model.get_buffer("features.act3.1.factor").fill_(1.0)


def _scale_frozen(training: Training, remedy: str) -> None:
    found = re.search(r"by about ([\d,.]+)", remedy)
    assert found  # what the quote of this attempt says
    factor = float(found[1].rstrip(".,").replace(",", ""))
    layer = training.model.get_submodule("trunk.fc4")
    layer.register_forward_hook(lambda _, inputs, output: factor * output)


def _forgetful_lstm() -> Training:
    """``lstm_forget_bias_minus_4`` under Adam: its SGD cannot learn the task with any bias."""
    torch.manual_seed(2)
    lstm = nn.LSTM(6, 20, batch_first=True)
    gate_bias(lstm, 20, 40, -4.0)
    model = models.Recurrent(lstm, 4)
    return supervised(model, adam(model, 0.01), data.first_token(40), steps=100, batch_size=32)


class _Adapted(nn.Module):
    """A frozen layer with a low-rank adapter beside it."""

    def __init__(self, wide: int, out: int, std: float) -> None:
        super().__init__()
        self.base = nn.Linear(wide, out).requires_grad_(False)
        self.lora_A = nn.Parameter(std * torch.randn(wide, 8))
        self.lora_B = nn.Parameter(torch.zeros(8, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.lora_A @ self.lora_B


def _adapters(std: float) -> Training:
    """Digits by adapters alone; with a standard deviation of 0 both factors are zero."""
    torch.manual_seed(0)
    model = nn.Sequential(_Adapted(64, 32, std), nn.ReLU(), _Adapted(32, 10, std))
    trained = [param for param in model.parameters() if param.requires_grad]
    return supervised(model, torch.optim.Adam(trained, 1e-2), data.digits(), steps=100)


def _fill_first_factor(training: Training, remedy: str) -> None:
    torch.manual_seed(0)
    for name, param in training.model.named_parameters():
        if name.endswith("lora_A"):
            nn.init.normal_(param, std=0.1)


ATTEMPTS: tuple[Attempt, ...] = (
    Attempt("sigmoid_mlp_12_default_sgd", "by ReLU and re-initialise",
            "The activations that it names become ReLU, the weights that it names He's.",
            replace_by_relu),
    Attempt("sigmoid_cnn", "by ReLU and re-initialise", "The same of convolutions.",
            replace_by_relu),
    Attempt("tanh_gain_30", "re-initialise", "Xavier and a bias of 0 where it says.", initialise),
    Attempt("silu_bias_minus_12", "re-initialise", "He and a bias of 0 where it says.", initialise),
    Attempt("raw_pixels_sigmoid_adam", "Normalise the inputs",
            "Each input feature gets mean 0 and deviation 1.", standardise(data.raw_digits()[0])),
    Attempt("output_beyond_hardtanh", "re-initialise the Linear module `decode` small",
            "`decode` begins with a standard deviation of 0.01 and a bias of 0.", _begin_small),
    Attempt("attention_unit_normal_d64", "Divide the scores by the root of the head's width",
            "The scores are divided by 8, `query` and `key` get Xavier's weights.", _scale_scores),
    Attempt("dead_bias_minus_12", "re-initialise", "He and a bias of 0 where it says.", initialise),
    Attempt("dead_layernorm_shift", "Set the shift (bias)", "Shifts become 0, scales 1.",
            reset_shifts),
    Attempt("relu_mlp_std001_sgd", "re-initialise", "He's weights where it says.", initialise),
    Attempt("relu_std_1", "re-initialise", "He's weights where it says.", initialise),
    Attempt("constant_factor_001", "take it away", "The factor between the blocks becomes 1.",
            _take_factor_away),
    Attempt("one_bad_layer_side_input", "Multiply what the Linear module `trunk.fc4` returns",
            "The output of the frozen `trunk.fc4` is multiplied by the number that it gives.",
            _scale_frozen),
    Attempt("weights_decayed_away", "Lower the weight decay",
            "The optimizer's weight decay is held to 1e-2.", limit("weight_decay", 1e-2)),
    Attempt("tanh_chain_50", "* f(x)",
            "Each block's output is scaled as it says and added to its input.", _scale_branches),
    Attempt("residual_stack_without_norm", "* f(x)", "Each branch is scaled as it says.",
            _scale_branches),
    Attempt("detach_behind_encoder", "Take `detach()` away", "The call is taken away."),
    Attempt("no_grad_backbone", "Take `torch.no_grad()` away", "The context is taken away."),
    Attempt("sign_units", "straight-through estimator",
            "sign(h) becomes tanh(h) + (sign(h) - tanh(h)).detach()."),
    Attempt("tanh_rate_too_high", "Lower the learning rate", "A tenth of the rate.",
            scale_rate(0.1)),
    Attempt("linear_rate_too_high", "Lower the learning rate", "A tenth of the rate.",
            scale_rate(0.1)),
    Attempt("rate_too_small", "Raise the learning rate", "By the factor that it gives.",
            raise_rate),
    Attempt("momentum_above_one", "momentum (below 1)", "The momentum becomes 0.9.",
            limit("momentum", 0.9)),
    Attempt("never_cleared_fast", "Call optimizer.zero_grad()",
            "zero_grad() before each backward()."),
    Attempt("clipped_while_scaled", "Call scaler.unscale_(optimizer) before",
            "unscale_() before clip_grad_norm_()."),
    Attempt("layer_replaced_behind_optimizer", "Make the optimizer after the model is complete",
            "The optimizer is made after the layers."),
    Attempt("second_optimizer_never_stepped", "Call step() of the optimizer",
            "Its step() is called."),
    Attempt("autocast_mlp_loss_1e6", "use bfloat16", "autocast to bfloat16 in place of float16.",
            _use_bfloat16),
    Attempt("rnn_tanh_first_of_50_adam", "an orthogonal recurrent matrix",
            "The recurrent matrix begins orthogonal.", _make_orthogonal),
    Attempt("lstm_forget_bias_minus_4", "a forget (in a GRU: update) bias of about log(T)",
            "The forget bias begins at 4; both runs are under the good version's optimizer.",
            _open_forget_gate, _forgetful_lstm),
    Attempt("rnn_recurrent_2", "an orthogonal recurrent matrix of gain 1",
            "The recurrent matrix begins orthogonal.", _make_orthogonal),
    Attempt("adapter_of_two_zeros", "Initialise lora_A randomly",
            "`lora_A` begins with a standard deviation of 0.1.", _fill_first_factor,
            partial(_adapters, 0.0), partial(_adapters, 0.125)),
    Attempt("sqrt_slope_at_zero", "sqrt", "sqrt(x + 1e-6) in place of sqrt(x)."),
    Attempt("log_of_zero_loss", "add an epsilon", "1e-3 is added to what is divided and logged."),
    Attempt("division_by_zero_norm", "add an epsilon", "An epsilon is added to the divisor."),
    Attempt("exp_overflow_poisson", "exp", "What exp takes in is clamped."),
    Attempt("post_norm_without_warm_up", "Lower the learning rate", "A tenth of the rate.",
            scale_rate(0.1)),
    Attempt("factors_at_rest", "give it a rate of its own", "The factors get the others' rate."),
    Attempt("one_scaled_conv", "Raise what multiplies the signal in features.act3.1 (Scale)",
            "The factor in that module becomes 1.", _raise_scale),
    Attempt("branch_behind_a_gate_at_minus_16", "begin it open", "The gate begins open."),
    Attempt("second_task_weighs_1e-07", "the weight of its term in the loss",
            "The term's weight becomes 1."),
)  # fmt: skip
