"""How often Python looks for cycles while a step is sampled: as often as without us."""

from __future__ import annotations

import gc

OBJECTS_PER_MODULE = 12
"""That wait for the end of a sampled step which is planned; about 30 where calls are followed."""

_TURN = "turn"
_HOLDERS: dict[str, object] = {}
"""Under ``_TURN`` the token of who in this process may raise the threshold; a dictionary, since
claiming an entry cannot be cut short."""


class SpacedCollections:
    """Leaves what a sampled step keeps out of what makes Python collect.

    Each 700 objects that live (``gc.get_threshold``) make it look through the young ones, which
    makes those old, and each quarter of all that are old through everything: 130 ms where torch
    is imported. None of ours is garbage while the step or its graph lives, and most are freed
    without a collection. The training's own objects are counted as ever, so that a step that never
    ends changes next to nothing.

    Of steps that are sampled at the same time only the first counts, so that what to go back to
    is never a sum of what several have added. An exception between any two lines, as of a signal,
    leaves the threshold as it was, or lets ``end`` find what it has to take back.

    Example:
        >>> before = gc.get_threshold()
        >>> spaced = SpacedCollections()
        >>> spaced.begin(100)
        >>> gc.get_threshold()[0] - before[0]
        1200
        >>> spaced.end()
        >>> gc.get_threshold() == before
        True
    """

    def __init__(self) -> None:
        self._token = object()
        self._found: tuple[int, ...] = ()
        self._raised: tuple[int, ...] = ()

    def begin(self, n_modules: int) -> None:
        """A step is about to be sampled.

        Args:
            n_modules: that are watched.
        """
        n_objects = OBJECTS_PER_MODULE * n_modules
        if self._raised and gc.get_threshold() == self._raised == _raise(self._found, n_objects):
            return  # taken back in between, Python would collect
        self.end()
        found = gc.get_threshold()
        if found[0] and n_objects and self._claim():  # 0: collections are off
            self._found = found
            self._raised = _raise(found, n_objects)
            gc.set_threshold(*self._raised)

    def end(self) -> None:
        """Its objects are gone; what somebody else has set meanwhile stays."""
        if _HOLDERS.get(_TURN) is self._token:
            if self._raised and gc.get_threshold() == self._raised:
                gc.set_threshold(*self._found)
            self._raised = ()
            del _HOLDERS[_TURN]

    def _claim(self) -> bool:
        """Whether no other step has raised the threshold; none does from here on."""
        return _HOLDERS.setdefault(_TURN, self._token) is self._token

    def __reduce__(self) -> tuple[type[SpacedCollections], tuple[()]]:
        """A copy has raised nothing."""
        return SpacedCollections, ()

    def __del__(self) -> None:
        self.end()


def _raise(threshold: tuple[int, ...], n_objects: int) -> tuple[int, ...]:
    first, *others = threshold
    return first + n_objects, *others
