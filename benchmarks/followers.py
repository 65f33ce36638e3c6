"""A remedy's words -> the change that they ask for, made in place and nothing else.

Places are read from the sentence itself, so that a remedy which names the wrong layers changes the
wrong layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from tests.zoo.case import Training

Follower = Callable[[Training, str], None]
"""A training that has not begun, and the remedy: changes the training."""

_NAME = r"`([^`]+)`"
_GROUP = re.compile(
    r"all (?P<all>\d+) (?P<every>\w+) modules"
    rf"|the (?:\d+ )?(?P<kind>\w+) modules? (?P<names>{_NAME}(?:(?:, | and | to ){_NAME})*)"
    r"|layer (?P<number>\d+) \(\w+\)"
)
_SCHEMES: dict[str, Callable[[Tensor], Tensor]] = {
    "He": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "Xavier": nn.init.xavier_normal_,
    "LeCun": lambda weight: nn.init.normal_(weight, std=weight[0].numel() ** -0.5),
}


def find_modules(model: nn.Module, words: str) -> list[nn.Module]:
    """Modules that some words of a remedy name, such as "the 2 Linear modules `fc1` and `fc2`".

    Raises:
        ValueError: they name none.
    """
    modules, found = dict(model.named_modules()), list[nn.Module]()
    for group in _GROUP.finditer(words):
        if group["every"]:
            found += [m for m in modules.values() if type(m).__name__ == group["every"]]
        elif group["number"]:
            found.append(modules[group["number"]])
        else:
            kind = group["kind"]
            named = set(_expand(group["names"], modules))
            found += [m for name, m in modules.items() if name in named and _is(m, kind)]
    if not found:
        raise ValueError(f"Expected words that name modules, got {words!r}.")
    return found


def _is(module: nn.Module, kind: str) -> bool:
    return type(module).__name__ == kind


def _expand(names: str, known: Iterable[str]) -> list[str]:
    """Names that are written out, and those between the ends of each range."""
    found = re.findall(_NAME, names)
    for first, last in re.findall(rf"{_NAME} to {_NAME}", names):
        pattern = re.sub(r"\d+", "*", first)
        ends = [[int(n) for n in re.findall(r"\d+", name)] for name in (first, last)]
        same = [name for name in known if fnmatchcase(name, pattern)]
        found += [
            name
            for name in same
            if ends[0] <= [int(number) for number in re.findall(r"\d+", name)] <= ends[1]
        ]
    return found


def initialise(training: Training, remedy: str) -> None:
    """``"re-initialise ... with He and a bias of 0"``."""
    found = re.search(r"e-initialise (.+?) with (He|Xavier|LeCun)", remedy)
    if not found:
        raise ValueError(f"Expected a remedy that re-initialises something, got {remedy!r}.")
    torch.manual_seed(0)
    for module in find_modules(training.model, found[1]):
        _SCHEMES[found[2]](module.weight.data)
        if "a bias of 0" in remedy and module.bias is not None:
            nn.init.zeros_(module.bias)


def replace_by_relu(training: Training, remedy: str) -> None:
    """``"Replace ... by ReLU and re-initialise ... with He"``."""
    words = remedy.partition(" by ReLU")[0]
    old = {id(module) for module in find_modules(training.model, words)}
    for parent in list(training.model.modules()):
        for name, child in parent.named_children():
            if id(child) in old:
                parent._modules[name] = nn.ReLU()
    initialise(training, remedy)


def reset_shifts(training: Training, remedy: str) -> None:
    """``"Set the shift (bias) of ... to 0 and its scale to 1"``."""
    for module in find_modules(training.model, remedy.partition(" to 0")[0]):
        nn.init.zeros_(module.bias)
        nn.init.ones_(module.weight)


def standardise(inputs: Tensor) -> Follower:
    """``"Normalise the inputs"`` and nothing else, by each feature's own mean and deviation."""
    mean, deviation = inputs.mean(0), inputs.std(0) + 1e-6

    def follow(training: Training, remedy: str) -> None:
        training.model.register_forward_pre_hook(lambda _, args: (args[0] - mean) / deviation)

    return follow


def scale_rate(factor: float) -> Follower:
    """``"Lower the learning rate"``, by so much."""

    def follow(training: Training, remedy: str) -> None:
        _multiply_rates(training, factor)

    return follow


def raise_rate(training: Training, remedy: str) -> None:
    """``"Raise the learning rate, some 170,000 times for a start"``."""
    found = re.search(r"some ([\d,.]+) ?(million)? ?times", remedy)
    if not found:
        raise ValueError(f"Expected a remedy with a factor, got {remedy!r}.")
    factor = float(found[1].replace(",", "")) * (1e6 if found[2] else 1.0)
    _multiply_rates(training, factor)


def _multiply_rates(training: Training, factor: float) -> None:
    for optimizer in training.optimizers:
        for group in optimizer.param_groups:
            group["lr"] *= factor


def limit(option: str, most: float) -> Follower:
    """An option of the optimizers that is held to at most so much at every step."""

    def hold(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            group[option] = min(group[option], most)

    def follow(training: Training, remedy: str) -> None:
        for optimizer in training.optimizers:
            hold(optimizer)
            optimizer.register_step_pre_hook(hold)

    return follow
