"""Words on the way: a finding that begins is said once, in a plain loop too."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import gradwatch
from tests.networks import Network, make_mlp, make_unhealthy_mlp


def train(network: Network, **options: Any) -> None:
    with gradwatch.watch(network.model, network.optimizer, every_n_steps=2, **options):
        network.train(60)


def test_a_finding_that_begins_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    train(make_unhealthy_mlp())
    (said,) = [record for record in caplog.records if record.name == "gradwatch"]
    assert said.levelname == "WARNING"
    assert "[GW101 vanishing, critical]" in said.getMessage()


def test_nothing_is_said_while_healthy(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    train(make_mlp())
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_it_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    train(make_unhealthy_mlp(), log_findings=False)
    assert caplog.records == []


def test_a_handler_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("theirs")

    monkeypatch.setattr(logging.getLogger("gradwatch"), "handlers", [Broken()])
    network = make_unhealthy_mlp()
    with (
        pytest.warns(RuntimeWarning, match="theirs"),
        gradwatch.watch(network.model, network.optimizer) as watching,
    ):
        network.train(40)
    assert watching.failure is None
