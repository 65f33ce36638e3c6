"""A line of the user's code that lets no gradient through, or can make one infinite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """A call that was given what learns and let no gradient through, or may make it infinite.

    Attributes:
        function: as the user called it, such as ``"detach"``, ``"round"`` or ``"torch.no_grad"``.
        source: ``"path/model.py:42"``, of the line in the user's code.
        line: that line, as written.
        caller: the function that it stands in, such as ``"Encoder.forward"``.
        layers: fqns of the calls whose outputs it was given.
        params: fqns of the parameters that it was given.
        is_flat: a gradient passes through it, and is exactly zero behind it.
        is_read: outside of forward, plain numbers were made of what it returned; whether anything
            that learns uses them is not known.
        is_singular: a gradient passes through it; its value or slope is infinite somewhere.
    """

    function: str
    source: str = ""
    line: str = ""
    caller: str = ""
    layers: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    is_flat: bool = False
    is_read: bool = False
    is_singular: bool = False

    @property
    def is_end(self) -> bool:
        """Whether it is known to end a gradient's way, rather than to be a hint of another kind."""
        return not (self.is_singular or self.is_read)
