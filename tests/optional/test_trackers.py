"""Trackers get the figures, and a finding as an alert where they have alerts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gradwatch
from gradwatch.alerts import Alerts
from tests.networks import make_unhealthy_mlp

pytestmark = pytest.mark.filterwarnings("ignore")


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    alerts: list[dict[str, Any]] = []
    run = wandb.init(mode="offline", dir=tmp_path, project="gradwatch")
    alert = run.alert
    monkeypatch.setattr(run, "alert", lambda **given: (alerts.append(given), alert(**given)))
    network = make_unhealthy_mlp()
    with gradwatch.watch(
        network.model, network.optimizer, log=wandb.log, on_change=Alerts(lambda: [wandb.run]).hear
    ) as watch:
        network.train(8)
    assert watch.failure is None
    assert run.summary["gradwatch/log10_attenuation"] < -5
    assert run.step == 7  # the last sampled one
    assert [given["title"] for given in alerts] == ["gradwatch: vanishing"]
    run.finish()
