"""What the page shows of one run at one moment: the words, and the pictures when asked for."""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from gradwatch.display.figures import build_payload
from gradwatch.display.figures.series import Column, Histograms, Series
from gradwatch.thresholds import Thresholds

COMPRESSION = 3  # of gzip: what a local connection is worth


@dataclass
class Snapshot:
    """Replaced as a whole by the next reading, so that no request waits for one.

    Attributes:
        brief: ``write_brief`` of the verdict without its table; ``{"error": ...}`` when unreadable.
        layers: the table, which only the shown run needs.
        columns: in order of their steps; empty when forgotten to save memory.
        histograms: of pre-activations.
        thresholds: in force.
    """

    brief: dict[str, Any]
    layers: list[Any] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    histograms: Histograms = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)
    _drawn: bytes | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def draw(self) -> bytes:
        """The figures and the table as gzipped JSON, built once."""
        with self._lock:
            if self._drawn is None:
                payload = build_payload(
                    Series.from_columns(self.columns, self.histograms, self.thresholds)
                )
                content = {**payload, "layers": self.layers}
                text = json.dumps(content, allow_nan=False, separators=(",", ":"))
                self._drawn = gzip.compress(text.encode(), COMPRESSION, mtime=0)
            return self._drawn
