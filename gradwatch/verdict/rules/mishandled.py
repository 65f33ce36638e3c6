"""GW802: a gradient that is used in a wrong way: of the wrong sign, piled up, cleared, clipped."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gradwatch.evidence.history import History
from gradwatch.evidence.progress import measure_scaled_clipping
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.standstill import find_cleared, find_fed, has_overflown
from gradwatch.evidence.topology import Mask, Topology
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_params
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.module_names import name_owners
from gradwatch.wording.phrases import name_number, name_region


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Gradients that raise the loss, are not cleared, cleared too early, or clipped while scaled.

    Args:
        history: of the run so far.
        thresholds: ``clipped``; ``update_ratio``, ``patience`` and ``progress`` of a clipping that
            does harm.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> record = make_record(param={"stale_grad_l2_norm": 0.5})
        >>> [sign.cause for sign in examine(make_history([record]), Thresholds())]
        ['not_cleared']
    """
    return [
        *_look_at_sign(history),
        *_look_at_leftovers(history, thresholds),
        *_look_at_cleared(history, thresholds),
        *_look_at_clipping(history, thresholds),
    ]


def _name_modules(history: History, found: Mask) -> tuple[str, ...]:
    return _name_owners(history.latest.topology, found.tobytes())


@lru_cache(maxsize=16)  # they are the same at each record, as a rule
def _name_owners(topology: Topology, found: bytes) -> tuple[str, ...]:
    indices = np.flatnonzero(np.frombuffer(found, dtype=bool))
    return name_owners(topology.params[index] for index in indices)


def _look_at_sign(history: History) -> list[Sign]:
    """All of a step's passes raise a loss, and the optimizer goes down what they began at.

    A game's player may raise the loss of another one; a step with other losses raises only a part.
    """
    record = history.latest.record
    raising, loss = record.step("raising_passes"), record.step("loss")
    if not 0 < raising == record.step("passes") or loss > 0 or history.loss_change.climbs:
        return []
    layers = _name_modules(history, find_fed(record) & history.latest.topology.is_held)
    if not layers:
        return []
    began = -history.losses.beginning
    way = f": from {name_number(began)} to {name_number(-loss)}" if loss < -began else ""
    message = (
        f"backward() is called on the negative of a loss, so that each step raises the loss{way}."
    )
    remedy = (
        "Call backward() on the loss itself, without the minus before it: an optimizer goes down "
        "what backward() is called on."
    )
    return [Sign(layers, "loss_sign", 1.0, 0.0, message, "critical", remedy=remedy)]


def _look_at_leftovers(history: History, thresholds: Thresholds) -> list[Sign]:
    found, record = history.latest.ask(_find_leftovers), history.latest.record
    if not np.count_nonzero(found):
        return []
    found = found & ~find_ignored_params(history.latest.topology, thresholds.ignore_layers)
    if not found.any():
        return []
    layers, stale = _name_modules(history, found), record.param("stale_grad_l2_norm")
    worst = int(np.argmax(np.where(found, stale, -1.0)))
    fqn = record.layer_set.params[worst].fqn
    message = (
        f"The gradients of {name_region(layers)} are never cleared: when backward began, that of "
        f"{fqn} was still {stale[worst]:.2g} from the step before, and this step's was added."
    )
    remedy = (
        "Call optimizer.zero_grad() once between step() and the next backward(), on the optimizer "
        "that holds these parameters."
    )
    share = float(np.count_nonzero(found) / len(found))
    return [Sign(layers, "not_cleared", share, 0.0, message, "critical", remedy=remedy)]


def _find_leftovers(table: RecordTable) -> Mask:
    stale, grad = table.param("stale_grad_l2_norm"), table.param("grad_l2_norm")
    moves = table.param("update_l2_norm") > 0  # what no step uses need not be cleared
    left: Mask = table.topology.is_held & (stale > 0) & (grad > 0) & np.isfinite(stale) & moves
    return left


def _look_at_cleared(history: History, thresholds: Thresholds) -> list[Sign]:
    """All that an optimizer holds and that had a gradient; a part may be frozen by hand."""
    record, held = history.latest.record, history.latest.topology.is_held
    cleared = history.latest.ask(find_cleared) & held
    if not np.count_nonzero(cleared) or has_overflown(record):
        return []
    fed = find_fed(record) & held
    number = np.array([param.optimizer for param in record.layer_set.params], dtype=np.int64)
    partly = set(number[fed & ~cleared].tolist())
    found = cleared & np.array([place not in partly for place in number.tolist()], dtype=bool)
    found &= ~find_ignored_params(history.latest.topology, thresholds.ignore_layers)
    if not found.any():
        return []
    layers = _name_modules(history, found)
    message = (
        f"A gradient arrives at {name_region(layers)}, and none is left when the optimizer steps: "
        "something clears or replaces it between backward() and step()."
    )
    remedy = "Move zero_grad() from between backward() and step() to after step()."
    return [Sign(layers, "cleared", 0.0, 0.0, message, "critical", remedy=remedy)]


def _look_at_clipping(history: History, thresholds: Thresholds) -> list[Sign]:
    """What clipping leaves is as small as a limit for unscaled gradients over the loss scale."""
    share, scaled_norm = measure_scaled_clipping(history)
    scale = history.latest.record.step("loss_scale")
    if not (share < thresholds.clipped and scaled_norm < scale**0.5):
        return []
    layers = _name_modules(
        history, find_fed(history.latest.record) & history.latest.topology.is_held
    )
    if not layers:
        return []
    harms = _does_harm(history, thresholds)
    but = "" if harms else "; the optimizer makes up for it, and the weights move"
    message = (
        f"The optimizer gets {name_number(1 / share)} times less gradient than arrives: it is "
        f"clipped to {scaled_norm:.2g} while it is scaled by {scale:,.0f}, and unscaled "
        f"after that{but}."
    )
    remedy = "Call scaler.unscale_(optimizer) before the gradients are clipped."
    severity = "critical" if harms else "note"
    return [
        Sign(layers, "not_unscaled", share, thresholds.clipped, message, severity, remedy=remedy)
    ]


def _does_harm(history: History, thresholds: Thresholds) -> bool:
    """Whether the weights stand still, or the loss has not fallen when there was time."""
    reading = history.latest
    update = reading.measure_update(thresholds.weight_floor)[reading.judged]
    if np.all(update < thresholds.update_ratio):
        return True
    had_time = history.last_step - history.first_step >= thresholds.patience
    return had_time and history.losses.remaining >= thresholds.progress


MISHANDLED = Rule(
    code="GW802",
    kind="mishandled",
    title="Mishandled gradient",
    examine=examine,
    doc="""\
## What it does
Finds gradients with which something goes wrong between the loss and `step()`: they are those of
the negative of a loss, are never cleared, cleared before the optimizer has used them, or clipped
while a `GradScaler` has them scaled.

## Why it matters
Each of these trains, in a way. The negative of a loss falls as it should, and without end, while
the network gets ever more wrong. Gradients that pile up act like a momentum of 1, and the run
breaks some hundred steps later, as if the learning rate were too high. Gradients that are cleared
early leave the weights as they are. Gradients of 2^16 times their size that are clipped to a norm
of 1 are next to nothing once they are unscaled.

## How it is measured
*Sign*: `backward()` was called on the negative of one of torch's own losses that are never below 0
(cross entropy, `mse_loss`, `binary_cross_entropy` with and without logits, `smooth_l1_loss`,
`huber_loss`), be it averaged or divided by a number, at each pass of the step; its outputs come
from a layer that an optimizer in use here holds; and the steps go down what `backward()` was called
on. *Not cleared*: when the first backward pass after a step begins, the gradient of before is still
there, unchanged, and it is so at every further pass until the optimizer that holds it steps; three
sampled steps in a row. What another model's backward leaves, as a generator's in a discriminator,
is cleared before its own. *Cleared*: a gradient was there when backward ended, for everything that
the optimizer holds, and none when it stepped. *Clipped while scaled*: the gradient at the step,
against the one that arrived, is below `clipped`, and its norm before unscaling below the root of
the loss scale, halfway between a usual limit and that limit times the scale. It is a note where the
weights move all the same and the loss falls: Adam divides by the gradient's size.

## Example
A loop without `optimizer.zero_grad()`.

## Known limits
A loss multiplied by -1, by a policy's return or by a `GradScaler`'s scale is not looked at: of a
factor nothing but its presence is known when its product is gone back through. An optimizer that
calls a closure runs `backward()` itself: of what happens to the gradient behind it only is seen
that it was cleared (set to `None`). Clipping by value looks like clipping by norm here.

## Configure or silence
`Thresholds(clipped=..., progress=...)`; `ignore_kinds=("mishandled",)`; `ignore_layers=(...)`.
""",
)
