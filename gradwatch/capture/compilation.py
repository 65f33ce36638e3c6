"""Compiled models: what this torch can do with them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

HAS_STANCE = hasattr(torch.compiler, "set_stance")
"""Since torch 2.6, compiled code can be run eagerly for a while."""

UNSEEN = "layers in compiled code are not seen: that needs torch 2.6 or newer"


def is_compiled(model: nn.Module) -> bool:
    """Whether any part of the model runs through ``torch.compile``.

    Args:
        model: or a part of one.
    """
    return any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


@cache
def stay_out_of_traces() -> None:
    """Have dynamo leave the functions of this package as they are; to be called once it is loaded.

    Where the backward of a training runs inside compiled code, dynamo would compile our hooks at
    each sampled step, which takes seconds. What it was asked concerns no code but ours, and stays.
    """
    rules: Any = getattr(torch._dynamo, "trace_rules", None)
    if hasattr(rules, "add"):
        rules.add("gradwatch")
