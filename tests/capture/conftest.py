"""What tests of compiled models share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Nothing is compiled before, and nothing stays so."""
    import torch  # not where the reading side is tested without it

    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of its own while it compiles
        yield
    torch._dynamo.reset()
