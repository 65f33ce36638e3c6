"""Reads CPU tensors for gradwatch in compiled code: see gradwatch's documentation on cost.

Nothing here is for users to call. gradwatch finds this package by itself, and its records are the
same with and without it.
"""

from __future__ import annotations

from gradwatch_native.kernels import Table

__all__ = ["INTERFACE", "Table"]

INTERFACE = 1
"""What gradwatch asks for before it uses this; another number is passed over."""
