"""Whose weights are held against each other: those that one optimizer moves.

A share of the loss's change is taken within such a pool, since rates and losses of several
optimizers, as of the players of a game, say nothing about each other.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.topology import Mask, Topology
from gradwatch.records import Param


@lru_cache(maxsize=16)
def find_pools(topology: Topology) -> tuple[npt.NDArray[np.int64], Mask]:
    """The pools of parameters that shares are taken of.

    Args:
        topology: of the network.

    Returns:
        Number of the pool whose sum each parameter is held against ``(n_params,)``, and the
        parameters that sums are made of: matrices that an optimizer holds.
    """
    counted = find_counted(topology)
    return pool_optimizers(topology.params, counted), counted


def has_players(reading: Reading) -> bool:
    """Whether several optimizers have stepped after several passes, as the players of a game do.

    Args:
        reading: of one record.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> has_players(make_reading(step={"passes": 2.0}))  # of one optimizer: accumulated
        False
    """
    group, counted = find_pools(reading.topology)
    return reading.record.step("passes") > 1 and len(set(group[counted])) > 1


def find_counted(topology: Topology) -> Mask:
    """Matrices that an optimizer holds and that can learn; of a model without any, all tensors.

    Args:
        topology: of the network.

    Returns:
        bool ``(n_params,)``.

    Example:
        >>> from gradwatch.evidence.topology import map_topology
        >>> from gradwatch.records import LayerSet
        >>> params = Param("fc.weight", "fc", (4, 4)), Param("fc.bias", "fc", (4,), "bias")
        >>> find_counted(map_topology(LayerSet(params=params))).tolist()
        [True, False]
    """
    learns = topology.is_held
    matrices = learns & np.array([len(param.shape) >= 2 for param in topology.params], dtype=bool)
    return matrices if matrices.any() else learns


def pool_optimizers(params: tuple[Param, ...], counted: Mask) -> npt.NDArray[np.int64]:
    """Number of each parameter's pool: its optimizer, or one pool where each has its own.

    Several optimizers of one matrix each are one optimizer written another way; the players of a
    game, whose losses have nothing to do with each other, hold several.

    Args:
        params: of the layer set.
        counted: bool ``(n_params,)``, the parameters that shares are made of.

    Returns:
        int64 ``(n_params,)``, from 0.

    Example:
        >>> each_its_own = tuple(Param(f"fc{i}.weight", optimizer=i) for i in range(3))
        >>> pool_optimizers(each_its_own, np.array([True] * 3)).tolist()
        [0, 0, 0]
        >>> players = tuple(Param(f"fc{i}.weight", optimizer=i // 2) for i in range(4))
        >>> pool_optimizers(players, np.array([True] * 4)).tolist()
        [0, 0, 1, 1]
    """
    group = np.array([param.optimizer for param in params], dtype=np.int64)
    if not group.size:
        return group
    counts = np.bincount(group[counted], minlength=int(group.max()) + 1)
    return group if counts.max(initial=0) > 1 else np.zeros_like(group)
