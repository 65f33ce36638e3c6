"""How often Python looks for cycles while a step is sampled: as often as without us."""

from __future__ import annotations

import gc
import threading

OBJECTS_PER_MODULE = 12
"""That wait for the end of a sampled step which is planned; about 30 where calls are followed."""


class _Thresholds:
    """Those of this process: what the user has set, and what all watches have added.

    Attributes:
        added: objects that do not count now.
    """

    def __init__(self) -> None:
        self.added = 0
        self._base = self._current = gc.get_threshold()
        self._lock = threading.RLock()  # a collection inside may end another watch

    def add(self, n_objects: int) -> None:
        """Let so many more live before Python collects; fewer, where below 0.

        Args:
            n_objects: that a sampled step keeps, or kept.
        """
        with self._lock:
            found = gc.get_threshold()
            is_ours = found == self._current and self.added > 0
            if not is_ours:  # somebody else has set it since
                self._base = found
            self.added += n_objects
            first, *others = self._base
            if first and (is_ours or n_objects > 0):  # 0: collections are switched off
                gc.set_threshold(first + self.added, *others)
            self._current = gc.get_threshold()


_THRESHOLDS = _Thresholds()


class SpacedCollections:
    """Leaves what a sampled step keeps out of what makes Python collect.

    Each 700 objects that live (``gc.get_threshold``) make it look through the young ones, which
    makes those old, and each quarter of all that are old through everything: 130 ms where torch
    is imported. None of ours is garbage while the step or its graph lives, and most are freed
    without a collection. The training's own objects are counted as ever, so that a step that never
    ends changes next to nothing.

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
        self._n_objects = 0

    def begin(self, n_modules: int) -> None:
        """A step is about to be sampled.

        Args:
            n_modules: that are watched.
        """
        self._keep(OBJECTS_PER_MODULE * n_modules)

    def end(self) -> None:
        """Its objects are gone; what somebody else has set meanwhile stays."""
        self._keep(0)

    def _keep(self, n_objects: int) -> None:
        before, self._n_objects = self._n_objects, n_objects
        if before != n_objects:
            _THRESHOLDS.add(n_objects - before)

    def __del__(self) -> None:
        self.end()
