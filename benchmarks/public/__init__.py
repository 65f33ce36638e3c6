"""Models of public packages, in small sizes, with data that they can learn."""

from __future__ import annotations

from benchmarks.public import (  # noqa: F401  they enter their models
    generative,
    graphs,
    hugging_face_signals,
    hugging_face_text,
    sequences,
    vision,
)
from benchmarks.public.recipe import MODELS, Batch, PublicModel, Recipe

__all__ = ["MODELS", "Batch", "PublicModel", "Recipe"]
