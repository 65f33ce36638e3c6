"""Rules and statistics of somebody else's: they are used, and they do no harm."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch import plugins
from gradwatch.capture.own_statistics import OwnStatistic
from gradwatch.cli import main
from gradwatch.cli.arguments import parse_kind_list
from gradwatch.errors import InvalidInput
from gradwatch.judgement import judge_logdir
from gradwatch.log.reader import read_runs
from gradwatch.schema import kinds, statistics
from gradwatch.schema.statistics import Statistic, list_names
from gradwatch.setting_values import parse_kinds
from gradwatch.verdict.rule import Rule, Sign
from tests.capture.tools import make_loop

PEAK = Statistic("grad_peak", "param", "", "last", "mean", "largest |g|", scales_with_loss=True)
SPREAD = Statistic("output_spread", "layer", "", "mean", "mean", "standard deviation of the output")
PEAKS = OwnStatistic(PEAK, lambda param, grad: grad.abs().amax())
SPREADS = OwnStatistic(SPREAD, lambda output: output.std())


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a process remembers of the parts that it has met."""
    monkeypatch.setattr(plugins, "_warned", set())
    monkeypatch.setattr(statistics, "_ADOPTED", {})
    known = dict(kinds.KINDS)
    plugins.load_plugins.cache_clear()
    yield
    plugins.load_plugins.cache_clear()
    kinds.KINDS.clear()
    kinds.KINDS.update(known)


def make_rule(examine: Callable[..., list[Sign]], code: str = "ACME1") -> Rule:
    return Rule(code, "cold", "Cold layer", examine, "What it does.")


def see_cold(*_: object) -> list[Sign]:
    return [Sign(("0",), None, 1.0, 2.0, "It is cold.", "warning", remedy="Heat it.")]


def raise_error(*_: object) -> list[Sign]:
    raise ValueError("of the rule's own")


def train(logdir: Path | None = None, **own: object) -> tuple[gradwatch.Report, list[Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradwatch.watch(model, optimizer, logdir=logdir, **own) as watch:  # type: ignore[arg-type]
        make_loop(model, optimizer, torch.randn(16, 4), steps=6)()
    assert watch.failure is None
    return watch.report(), [param.detach().clone() for param in model.parameters()]


def name_entry_point(monkeypatch: pytest.MonkeyPatch, group: str, value: object) -> None:
    class Point:
        def __init__(self) -> None:
            self.name, self.group, self.value = "acme", group, "acme:thing"

        def load(self) -> object:
            if isinstance(value, Exception):
                raise value
            return value

    found = {group: [Point()]}
    monkeypatch.setattr(plugins, "entry_points", lambda group: found.get(group, []))


def test_a_rule_is_judged_by() -> None:
    report, _ = train(rules=[make_rule(see_cold)])
    assert [(finding.code, finding.remedy) for finding in report.findings] == [
        ("ACME1", "Heat it.")
    ]
    assert "cold" in str(report)


@pytest.mark.parametrize("examine", [raise_error, lambda *_: [1], lambda *_: None])
def test_a_broken_rule_is_named_once_and_left_out(examine: Callable[..., list[Sign]]) -> None:
    with pytest.warns(RuntimeWarning, match="ACME1.*judges no further") as caught:
        (report, _), _ = [train(rules=[make_rule(examine)]) for _ in range(2)]
    assert len(caught) == 1
    assert not report.findings
    assert "ACME1" in report.unseen[-1]


@pytest.mark.parametrize(
    "change", [{"severity": "loud"}, {"layers": ()}, {"layers": "0"}, {"observed": "much"}]
)
def test_a_sign_that_cannot_be_shown_ends_its_rule(change: dict[str, object]) -> None:
    def examine(*_: object) -> list[Sign]:
        return [dataclasses.replace(see_cold()[0], **change)]  # type: ignore[arg-type]

    with pytest.warns(RuntimeWarning, match="ACME1"):
        report, _ = train(rules=[make_rule(examine)])
    assert not report.findings


def test_a_late_explanation_is_asked_for_where_it_can_do_no_harm() -> None:
    def examine(*_: object) -> list[Sign]:
        return [dataclasses.replace(see_cold()[0], explain=raise_error)]

    with pytest.warns(RuntimeWarning, match="ACME1"):
        report, _ = train(rules=[make_rule(examine)])
    assert not report.findings


@pytest.mark.parametrize("rules", [["GW101"], [make_rule(see_cold, "GW101")]])
def test_what_is_no_rule_of_its_own_is_refused(rules: list[Rule]) -> None:
    with pytest.raises(InvalidInput):
        train(rules=rules)


def test_a_package_brings_a_rule_for_the_training_and_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name_entry_point(monkeypatch, plugins.RULES_GROUP, make_rule(see_cold))
    report, _ = train(tmp_path)
    (verdict,) = judge_logdir(str(tmp_path)).verdicts
    assert [finding.code for finding in report.findings] == [
        finding.code for finding in verdict.findings
    ]
    assert [finding.code for finding in verdict.findings] == ["ACME1"]


def test_a_package_s_rule_is_known_before_any_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path)
    name_entry_point(monkeypatch, plugins.RULES_GROUP, make_rule(see_cold))
    plugins.load_plugins.cache_clear()
    assert parse_kind_list("cold,dead") == ["cold", "dead"]
    assert parse_kinds(["cold"]) == ("cold",)
    assert main(["explain", "acme1"]) == 0
    assert "What it does." in capsys.readouterr().out
    assert main(["check", str(tmp_path), "--fail-on", "cold", "--format", "sarif"]) == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert [row["ruleId"] for row in run["results"]] == ["ACME1"]
    assert run["results"][0]["ruleIndex"] == len(run["tool"]["driver"]["rules"]) - 1


@pytest.mark.parametrize("value", [ImportError("gone"), SyntaxError("bad"), "no rule"])
def test_a_broken_package_is_named_once_and_left_out(
    monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    name_entry_point(monkeypatch, plugins.RULES_GROUP, value)
    with pytest.warns(RuntimeWarning, match="acme:thing") as caught:
        reports = [train()[0] for _ in range(2)]
    assert len(caught) == 1
    assert [report.records for report in reports] == [6, 6]


def test_statistics_are_in_the_record_and_in_the_log(tmp_path: Path) -> None:
    report, _ = train(tmp_path, statistics=[PEAKS, SPREADS])
    assert report.history is not None
    record = report.history.latest.record
    peak, norm = record.param("grad_peak"), record.param("grad_l2_norm")
    assert (peak > 0).all()
    assert (peak <= norm).all()
    assert np.isfinite(record.layer("output_spread")).all()
    (run,) = read_runs(str(tmp_path))
    *_, last = run.records()
    np.testing.assert_array_equal(last.param("grad_peak"), peak)
    np.testing.assert_array_equal(last.layer("output_spread"), record.layer("output_spread"))


def test_a_statistic_stays_in_its_watch() -> None:
    before = list_names("param", "layer")
    train(statistics=[PEAKS, SPREADS])
    report, _ = train()
    assert report.history is not None
    assert "grad_peak" not in report.history.latest.record.layer_set.rows.param
    assert list_names("param", "layer") == before


def test_a_package_brings_a_statistic(monkeypatch: pytest.MonkeyPatch) -> None:
    name_entry_point(monkeypatch, plugins.STATISTICS_GROUP, PEAKS)
    report, _ = train()
    assert report.history is not None
    assert (report.history.latest.record.param("grad_peak") > 0).all()


@pytest.mark.parametrize(
    "measure",
    [
        lambda param, grad: grad,
        lambda param, grad: grad.sum().item(),
        lambda param, grad: 1 / 0,
        lambda param, grad: grad.sum().to("meta"),
    ],
)
def test_a_broken_statistic_is_named_once_and_changes_nothing(
    measure: Callable[..., Tensor],
) -> None:
    _, plain = train()
    with pytest.warns(RuntimeWarning, match="grad_peak") as caught:
        report, weights = train(statistics=[OwnStatistic(PEAK, measure)])
    assert len(caught) == 1
    assert report.history is not None
    assert np.isnan(report.history.latest.record.param("grad_peak")).all()
    assert all(map(torch.equal, weights, plain))


def test_a_statistic_that_writes_is_found_out() -> None:
    with pytest.warns(RuntimeWarning, match="has written to it"):
        train(statistics=[OwnStatistic(PEAK, lambda param, grad: grad.mul_(1).sum())])


def test_a_measure_of_activations_is_no_call_of_the_model() -> None:
    plain, _ = train()
    seen = OwnStatistic(SPREAD, lambda output: torch.sigmoid(output).mean())
    report, _ = train(statistics=[seen])
    assert report.history is not None
    assert plain.history is not None
    layers = report.history.latest.record.layer_set.layers
    assert layers == plain.history.latest.record.layer_set.layers


@pytest.mark.parametrize(
    "statistic",
    [
        "grad_peak",
        OwnStatistic(dataclasses.replace(PEAK, scope="step"), PEAKS.measure),
        OwnStatistic(dataclasses.replace(PEAK, name="grad_l2_norm"), PEAKS.measure),
    ],
)
def test_what_is_no_statistic_of_its_own_is_refused(statistic: OwnStatistic) -> None:
    with pytest.raises(InvalidInput):
        train(statistics=[statistic])


class _Alarm(Exception):
    pass


def _interrupt(*_: object) -> None:
    raise _Alarm


def _be_interrupted(*_: object) -> None:
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize(
    "own",
    [
        {"rules": [make_rule(_be_interrupted)]},  # type: ignore[arg-type]
        {"statistics": [OwnStatistic(PEAK, _be_interrupted)]},  # type: ignore[arg-type]
    ],
    ids=["rule", "statistic"],
)
def test_a_signal_within_them_reaches_the_training(own: dict[str, object]) -> None:
    before = signal.signal(signal.SIGUSR1, _interrupt)
    try:
        with pytest.raises(_Alarm):
            train(**own)  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGUSR1, before)
