"""Which initialisation keeps the gradient's scale, given the activation that follows a weight.

He et al. (2015), section 2.2: variance 2/fan_in makes up for the half that a rectifier drops.
Glorot & Bengio (2010), section 4.2: variance 2/(fan_in+fan_out) keeps both directions where the
activation is about linear. LeCun et al. (1998), section 4.6: variance 1/fan_in, for no activation
at all and for SELU.
"""

from __future__ import annotations

from collections.abc import Iterable

from gradwatch.evidence.topology import Topology
from gradwatch.schema.activations import find_activation


def join_schemes(schemes: Iterable[str]) -> str:
    """Names of initialisations, each once, in the order of first mention.

    Args:
        schemes: such as ``"He"``.

    Example:
        >>> join_schemes(["He", "Xavier", "He"])
        'He and Xavier'
    """
    return " and ".join(dict.fromkeys(schemes))


def is_hidden_activation(topology: Topology, index: int) -> bool:
    """Whether the layer is an elementwise activation inside the network, no gate and no head.

    Args:
        topology: of the network.
        index: of the layer.
    """
    row = find_activation(topology.layers[index].type)
    return bool(topology.is_hidden[index]) and (row is None or row.is_elementwise)


def find_following(topology: Topology, index: int) -> int | None:
    """Nearest hidden activation behind a layer, with no other weight between.

    Args:
        topology: of the network.
        index: of the layer.

    Returns:
        Its index; ``None`` without one.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> find_following(make_reading().topology, 0), find_following(make_reading().topology, 2)
        (1, None)
    """
    queue, seen = list(topology.consumers[index]), {index}
    while queue:
        here = queue.pop(0)
        if here in seen:
            continue
        seen.add(here)
        if is_hidden_activation(topology, here):
            return here
        if topology.layers[here].role not in ("weight", "recurrent", "embedding", "activation"):
            queue.extend(topology.consumers[here])
    return None


def find_following_type(topology: Topology, index: int) -> str:
    """Type of the nearest hidden activation behind a layer.

    Args:
        topology: of the network.
        index: of the layer.

    Returns:
        Such as ``"ReLU"``; ``""`` without one.
    """
    found = find_following(topology, index)
    return "" if found is None else topology.layers[found].type
