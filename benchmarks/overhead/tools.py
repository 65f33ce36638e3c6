"""What is measured: single ways to run a step, and the tools whose cost follows from them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec

from benchmarks.overhead import rivals
from benchmarks.overhead.lower_bound import run_lower_bound
from benchmarks.overhead.ours import Step, run_bare, run_between, run_sampled
from benchmarks.overhead.workloads import Training
from gradwatch.capture.schedule import Schedule

Run = Callable[[Training], AbstractContextManager[Step]]

HORIZON = 1_000
"""Steps over which the cost of a tool that does not look at every step is spread."""

BARE = "bare"

RUNS: dict[str, Run] = {
    BARE: run_bare,
    "bare again": run_bare,
    "lower bound": run_lower_bound,
    "gradwatch sampled": run_sampled,
    "gradwatch between": run_between,
    "tensor hooks": rivals.run_tensor_hooks,
    "grad_norm": rivals.run_grad_norm,
    "wandb gradients": rivals.run_wandb_gradients,
    "wandb all": rivals.run_wandb_all,
    "wandb between": rivals.run_wandb_between,
    "torchmortem": rivals.run_torchmortem,
    "delve": rivals.run_delve,
    "ActivationStats": rivals.run_activation_stats,
    "underflow check": rivals.run_underflow_check,
    "cockpit": rivals.run_cockpit,
}
"""Ways to run a step, in the order of a round."""


@dataclass(frozen=True)
class Tool:
    """Something that people could use, as a mix of ways to run a step.

    Attributes:
        name: as chosen on the command line.
        title: for the table.
        shares: of ``HORIZON`` steps that are run in each way; they sum to 1.
        requires: package that must be installed.
        note: what it measures, for the table.
        budget: the shares follow from the step times that were measured, and from this.
    """

    name: str
    title: str
    shares: dict[str, float]
    requires: str = "torch"
    note: str = ""
    budget: float | None = None

    @property
    def is_installed(self) -> bool:
        """Whether its package is there."""
        return find_spec(self.requires) is not None


def mix(often: str, rarely: str, count: int) -> dict[str, float]:
    """``count`` of ``HORIZON`` steps are run in the second way."""
    return {often: 1 - count / HORIZON, rarely: count / HORIZON}


def count_sampled(schedule: Schedule, steps: int = HORIZON) -> int:
    """Steps among the first ones that are sampled."""
    return sum(schedule.is_sampled(step) for step in range(steps))


_FIRST_PARTY = (
    Tool("noise", "bare step, again", {"bare again": 1}, note="noise floor"),
    Tool(
        "default",
        "**gradwatch, default schedule**",
        mix("gradwatch between", "gradwatch sampled", count_sampled(Schedule())),
        note="everything, over 1,000 steps",
    ),
    Tool(
        "budget",
        "**gradwatch, `budget=0.01`**",
        {"gradwatch between": 1, "gradwatch sampled": 0},
        note="everything, over 1,000 steps, as many as the budget lets through",
        budget=0.01,
    ),
    Tool(
        "every_step",
        "**gradwatch, every step**",
        {"gradwatch sampled": 1},
        note="everything: layers, activations, parameters, updates; judged",
    ),
    Tool(
        "lower_bound",
        "the same reductions by hand",
        {"lower bound": 1},
        note="numbers into a buffer, nothing else",
    ),
)

_RIVALS = (
    Tool("hooks", "tensor hooks with `.item()`", {"tensor hooks": 1}, note="parameter gradients"),
    Tool(
        "grad_norm",
        "Lightning `grad_norm`",
        {"grad_norm": 1},
        "lightning",
        "parameter gradients",
    ),
    Tool(
        "wandb_default",
        "`wandb.watch`, default",
        mix("wandb between", "wandb gradients", 1),
        "wandb",
        "histograms of parameter gradients, each 1,000th step",
    ),
    Tool(
        "wandb_gradients",
        "`wandb.watch`, `log_freq=1`",
        {"wandb gradients": 1},
        "wandb",
        "histograms of parameter gradients",
    ),
    Tool(
        "wandb_all",
        '`wandb.watch(log="all")`, `log_freq=1`',
        {"wandb all": 1},
        "wandb",
        "histograms of parameters and gradients",
    ),
    Tool(
        "wandb_all_default",
        '`wandb.watch(log="all")`, default',
        mix("wandb between", "wandb all", 1),
        "wandb",
        "histograms of parameters and gradients, each 1,000th step",
    ),
    Tool(
        "torchmortem",
        "`torchmortem`",
        {"torchmortem": 1},
        "torchmortem",
        "gradients, activations, weights, as its sampling has it",
    ),
    Tool("delve", "`delve`", {"delve": 1}, "delve", "covariance of layer outputs"),
    Tool(
        "activation_stats",
        "fastai `ActivationStats`",
        {"ActivationStats": 1},
        "fastai",
        "mean, deviation, near-zero share of outputs",
    ),
    Tool(
        "underflow_check",
        "transformers `DebugUnderflowOverflow`",
        {"underflow check": 1},
        "transformers",
        "smallest and largest of weights, inputs and outputs; whether they are finite",
    ),
    Tool("cockpit", "Cockpit `GradNorm`", {"cockpit": 1}, "cockpit", "parameter gradients"),
)

TOOLS = {tool.name: tool for tool in (*_FIRST_PARTY, *_RIVALS)}
