"""NaN and Inf that hurt: since which record, and where they began.

A value that is not finite in an output may be meant: masked scores are -inf, and their softmax is
finite. What hurts is a gradient, an update, a weight or the loss; outputs are evidence for where it
began, once something hurts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import Indices, Mask


@dataclass
class Break:
    """The newest stretch of records in which something is hurt.

    Attributes:
        first: reading in which it was met first; ``None`` while all is whole.
        before: the last whole reading before that.
        lasted: readings of the stretch.
    """

    first: Reading | None = None
    before: Reading | None = None
    lasted: int = 0

    def add(self, reading: Reading) -> None:
        """Take in the next reading.

        Args:
            reading: of the next record.

        Example:
            >>> from gradwatch.evidence.worked_example import make_reading
            >>> state = Break()
            >>> for grad in (1.0, np.inf, np.inf):
            ...     state.add(make_reading(param={"grad_l2_norm": grad}))
            >>> state.lasted
            2
        """
        if not reading.ask(find_hurt):
            self.first, self.before, self.lasted = None, reading, 0
            return
        self.first = self.first or reading
        self.lasted += 1


@dataclass(frozen=True)
class Origin:
    """Where a break began.

    Attributes:
        layers: fully qualified names, the likeliest first.
        what: ``"output"``, ``"gradient"`` (at a layer's output), ``"parameter"`` (its gradient),
            ``"update"`` (the optimizer's step, all that it takes in was finite) or ``"unseen"``:
            the weights were broken before the record began.
        behind: of a gradient, the layers that it came back through, none of them broken before;
            empty where it came from the loss.
    """

    layers: tuple[str, ...]
    what: str
    behind: tuple[str, ...] = ()

    @property
    def is_last(self) -> bool:
        """Whether no layer stands between it and the loss."""
        return not self.behind


def find_hurt(table: RecordTable) -> Mask:
    """Records in which a gradient, an update, a weight or the loss is NaN or Inf ``(n_records,)``.

    Args:
        table: of records, in which NaN is "not measured" and a norm that is not finite is Inf.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> masked = make_record(layer={"output_l2_norm": np.inf})  # masked scores are -inf
        >>> broken = make_record(param={"grad_l2_norm": np.inf})
        >>> find_hurt(RecordTable([masked, broken])).tolist()
        [False, True]
    """
    params = [table.param(f"{what}_l2_norm") for what in ("grad", "weight", "update")]
    rows = (*params, table.layer("grad_output_l2_norm"), table.step("loss")[:, None])
    hurt: Mask = np.logical_or.reduce([np.isinf(row).any(axis=1) for row in rows])
    return hurt


def has_reached_weights(reading: Reading) -> bool:
    """Whether a weight is broken, or has been by this record's step.

    Args:
        reading: of one record.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> has_reached_weights(make_reading(param={"update_l2_norm": np.inf}))
        True
    """
    names = ("update_l2_norm", "weight_l2_norm")
    return any(bool(np.isinf(reading.record.param(name)).any()) for name in names)


def has_reached_anything(reading: Reading) -> bool:
    """Whether a weight, its gradient or the loss is broken, and not only a gradient on its way.

    Args:
        reading: of one record.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> has_reached_anything(make_reading(layer={"grad_output_l2_norm": (1.0, 1.0, np.inf)}))
        False
        >>> has_reached_anything(make_reading(param={"grad_l2_norm": (1.0, np.inf)}))
        True
    """
    grads = reading.record.param("grad_l2_norm")
    is_in_loss = bool(np.isinf(reading.record.step("loss")))
    return has_reached_weights(reading) or is_in_loss or bool(np.isinf(grads).any())


def find_broken_outputs(reading: Reading, before: Reading | None) -> Indices:
    """Layers whose output is not finite, but those where that was so while all was whole.

    Args:
        reading: of one record.
        before: the last reading in which nothing was hurt; ``None`` where there is none.

    Returns:
        Indices of layers, int64, in the order of forward.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> masked = make_reading(layer={"output_l2_norm": (4.0, np.inf, 4.0)})
        >>> broken = make_reading(layer={"output_l2_norm": (4.0, np.inf, np.inf)})
        >>> find_broken_outputs(broken, masked).tolist()
        [2]
    """
    broken = np.flatnonzero(np.isinf(reading.record.layer("output_l2_norm")))
    if before is None:
        return broken
    norms = before.record.layer("output_l2_norm")
    meant = {before.topology.layers[i].key for i in np.flatnonzero(np.isinf(norms))}
    kept = [i for i in broken if reading.topology.layers[i].key not in meant]
    return np.array(kept, dtype=np.int64)


def find_origin(first: Reading, before: Reading | None) -> Origin:
    """Where it began: forward in order, else backward from the loss, else at a parameter.

    Args:
        first: reading in which something was hurt for the first time.
        before: the last reading before it; ``None`` where there is none.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> rows = {"output_l2_norm": (4.0, 2.0, np.inf), "grad_output_l2_norm": np.inf}
        >>> find_origin(make_reading(layer=rows), make_reading())
        Origin(layers=('fc1',), what='output', behind=())
    """
    record, topology = first.record, first.topology
    if np.isinf(record.param("weight_l2_norm")).any():
        return _list_broken(first, "weight_l2_norm", "unseen")
    outputs = find_broken_outputs(first, before)
    handed_on = [i for i in outputs if _is_handed_on(first, i)]
    if handed_on:
        return Origin((topology.layers[handed_on[0]].fqn,), "output")
    grads = np.flatnonzero(np.isinf(record.layer("grad_output_l2_norm")))
    if grads.size:
        index = int(grads[-1])
        behind = [topology.layers[i].fqn for i in topology.consumers[index]]
        return Origin((topology.layers[index].fqn,), "gradient", tuple(dict.fromkeys(behind)))
    if outputs.size:
        return Origin((topology.layers[outputs[0]].fqn,), "output")
    broken = np.flatnonzero(np.isinf(record.param("grad_l2_norm")))
    if broken.size:
        return Origin((topology.params[broken[-1]].fqn,), "parameter")
    if not np.isinf(record.step("loss")) and np.isinf(record.param("update_l2_norm")).any():
        return _list_broken(first, "update_l2_norm", "update")
    last = [layer.fqn for layer in topology.layers[-1:]] or [
        param.fqn for param in topology.params[:1]
    ]
    return Origin(tuple(last) or ("",), "gradient")


def _is_handed_on(reading: Reading, index: int) -> bool:
    """Whether what takes this output in is not finite either; nothing is known of the last one."""
    norms = reading.record.layer("output_l2_norm")
    behind = reading.topology.consumers[index]
    return not behind or any(np.isinf(norms[user]) for user in behind)


def _list_broken(reading: Reading, statistic: str, what: str) -> Origin:
    """Layers of parameters that are broken, from the loss back: gradients come from there."""
    topology = reading.topology
    broken = np.flatnonzero(np.isinf(reading.record.param(statistic))).tolist()
    broken.sort(key=lambda i: (-max(topology.calls[i], default=-1), -i))
    names = dict.fromkeys(topology.param_layers[i] for i in broken)
    return Origin(tuple(names), what)


def is_update_in_float16(reading: Reading, origin: Origin) -> bool:
    """Whether the optimizer's step broke weights that are held in float16.

    Its state is in the weights' format then, in which 1e-8 is 0, and so is the second moment of a
    small gradient: the step divides 0 by 0. bfloat16 has the range of float32.

    Args:
        reading: in which the break was met first.
        origin: where it began.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> is_update_in_float16(make_reading(), Origin(("fc1",), "update"))
        False
    """
    broken = np.isinf(reading.record.param("update_l2_norm"))
    dtypes = {reading.topology.params[index].dtype for index in np.flatnonzero(broken)}
    return origin.what == "update" and "float16" in dtypes
