"""What is known of a sampled step that is expected to go as a plan says, however it is read."""

from __future__ import annotations


class PlannedStep:
    """Whether the step goes as planned.

    Attributes:
        mismatch: what was otherwise than planned; ``""``: nothing so far.
    """

    def __init__(self) -> None:
        self.mismatch = ""

    def reject(self, mismatch: str) -> None:
        """Reality is not as planned: nothing more is read.

        Args:
            mismatch: why, in a word or two; the first one stays.
        """
        self.mismatch = self.mismatch or mismatch
