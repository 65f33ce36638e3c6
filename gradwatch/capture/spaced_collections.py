"""How often Python looks for cycles while a step is sampled: as often as without us."""

from __future__ import annotations

import gc
import threading

OBJECTS_PER_MODULE = 12
"""That wait for the end of a sampled step which is planned; about 30 where calls are followed."""

_TURN = threading.Lock()
"""Held by the sampled step of this process that has raised the threshold."""


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

    _found: tuple[int, ...] = ()
    _raised: tuple[int, ...] = ()

    def begin(self, n_modules: int) -> None:
        """A step is about to be sampled.

        Args:
            n_modules: that are watched.
        """
        n_objects = OBJECTS_PER_MODULE * n_modules
        first, *others = found = gc.get_threshold()
        if found == self._raised and first - self._found[0] == n_objects:
            return  # taken back in between, Python would collect
        self.end()
        first, *others = found = gc.get_threshold()
        if first and n_objects and _TURN.acquire(blocking=False):  # 0: collections are off
            self._found = found
            self._raised = (first + n_objects, *others)
            gc.set_threshold(*self._raised)

    def end(self) -> None:
        """Its objects are gone; what somebody else has set meanwhile stays."""
        if self._raised:
            if gc.get_threshold() == self._raised:
                gc.set_threshold(*self._found)
            self._raised = ()
            _TURN.release()

    def __reduce__(self) -> tuple[type[SpacedCollections], tuple[()]]:
        """A copy has raised nothing."""
        return SpacedCollections, ()

    def __del__(self) -> None:
        self.end()
