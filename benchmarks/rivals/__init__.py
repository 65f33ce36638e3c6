"""What people use today, by the same protocol (``benchmarks.sighting.Detector``)."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.rivals.autotrainer import AutoTrainer
from benchmarks.rivals.deepdiagnosis import DeepDiagnosis
from benchmarks.rivals.sagemaker import SageMaker
from benchmarks.rivals.torchmortem import TorchMortem
from benchmarks.sighting import Detector

RIVALS: dict[str, Callable[[], Detector]] = {
    "sagemaker": SageMaker,
    "autotrainer": AutoTrainer,
    "autotrainer-gated": lambda: AutoTrainer(gated=True),
    "deepdiagnosis": DeepDiagnosis,
    "torchmortem": TorchMortem,
}

__all__ = ["RIVALS"]
