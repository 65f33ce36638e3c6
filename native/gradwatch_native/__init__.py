"""Reads CPU tensors for gradwatch in compiled code: see gradwatch's documentation on cost.

Nothing here is for users to call. gradwatch finds this package by itself, and its records are the
same with and without it.
"""

from __future__ import annotations

from gradwatch_native.kernels import Table

__all__ = ["INTERFACE", "ROW", "Table"]

INTERFACE = 1
"""What gradwatch asks for before it uses this; another number is passed over."""

ROW = [
    ("column", "i4"),
    ("index", "i4"),
    ("root", "i4"),
    ("sample", "i4"),
    ("sum_squares", "f8"),
    ("nonzero", "f8"),
]
"""Fields of a row of ``Table.take``, for ``numpy.dtype``."""
