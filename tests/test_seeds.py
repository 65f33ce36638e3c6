"""Several seeds: a majority decides, NaN in one is enough, and the caller's model stays."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gradwatch
from gradwatch.errors import InvalidInput, NothingToJudge, UnhealthyGradients
from gradwatch.report import Report
from gradwatch.seed_vote import merge_reports
from gradwatch.verdict.findings import Finding
from tests.networks import make_mlp, make_unhealthy_mlp
from tests.traces import capture_results, list_differences


def make_report(*kinds: str, records: int = 20) -> Report:
    findings = tuple(
        Finding("GW101", kind, "critical", None, ("fc1",), 0, 9, 0.0, 0.1, f"{kind}!", "Change it.")
        for kind in kinds
    )
    return Report(findings=findings, records=records)


class TestVote:
    def test_a_majority_is_red(self) -> None:
        merged = merge_reports([make_report(), make_report("dead"), make_report("dead")])
        assert [finding.kind for finding in merged.findings] == ["dead"]
        assert merged.vote == "Unhealthy with 2 of 3 seeds."

    def test_a_minority_is_a_note(self) -> None:
        merged = merge_reports([make_report("dead"), make_report(), make_report()])
        assert merged.healthy
        assert merged.notes[0].message == "Unhealthy with 1 of 3 seeds, no majority: dead!"
        assert merged.notes[0].severity == "note"

    def test_half_is_no_majority(self) -> None:
        assert merge_reports([make_report("dead"), make_report()]).healthy

    def test_nan_in_one_is_enough(self) -> None:
        merged = merge_reports([make_report(), make_report("nonfinite"), make_report()])
        assert [finding.kind for finding in merged.findings] == ["nonfinite"]
        assert merged.vote == "Unhealthy with 1 of 3 seeds."

    def test_one_that_was_not_judged_makes_the_whole_not_judged(self) -> None:
        merged = merge_reports([make_report(), make_report(records=0), make_report()])
        with pytest.raises(NothingToJudge):
            merged.raise_if()


def test_a_factory_is_called_once_for_each_seed_with_its_own_numbers() -> None:
    weights = []

    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
        weights.append(model[0].weight.detach().clone())
        return model

    batches = make_mlp().batches
    first = gradwatch.check(build, batches, cross_entropy, steps=4, seeds=3)
    again = gradwatch.check(build, batches, cross_entropy, steps=4, seeds=3)
    assert (first.seeds, first.records) == (3, 4)
    assert len(weights) == 6
    assert not any(map(torch.equal, *zip(*itertools.combinations(weights[:3], 2), strict=True)))
    assert all(map(torch.equal, weights[:3], weights[3:]))
    assert first.layers[0].update_ratio == again.layers[0].update_ratio


def test_an_instance_keeps_its_weights_and_the_caller_everything() -> None:
    network = make_mlp().train(2)
    things = (network.model, [network.optimizer], network.losses)
    before = capture_results(*things)
    starts = []

    def loss_fn(model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        first = next(model.parameters()).detach().clone()
        starts.append((first, batch[0]))
        return cross_entropy(model(batch[0]), batch[1])

    gradwatch.check(network.model, network.batches, loss_fn, network.optimizer, 4, seeds=3)
    assert list_differences(before, capture_results(*things)) == []
    first_steps = starts[::4]
    assert all(torch.equal(weights, first_steps[0][0]) for weights, _ in first_steps)
    orders = {tuple(float(x[0, 0]) for _, x in starts[at : at + 4]) for at in (0, 4, 8)}
    assert len(orders) > 1
    assert len({frozenset(order) for order in orders}) == 1  # the same batches, in another order


def test_red_with_every_seed() -> None:
    unhealthy = make_unhealthy_mlp()
    report = gradwatch.check(unhealthy.model, unhealthy.batches, cross_entropy, seeds=3)
    assert report.vote.startswith("Unhealthy with 3 of 3 seeds, in ")
    for text in (str(report), report.to_markdown(), report._repr_html_()):
        assert "Unhealthy with 3 of 3 seeds" in text
    assert report.to_dict()["unhealthy_seeds"] == 3
    with pytest.raises(UnhealthyGradients):
        report.raise_if("vanishing")


def test_a_budget_that_is_spent_is_no_pass() -> None:
    network = make_mlp()
    with pytest.raises(NothingToJudge, match="step 0 of 20, seed 1 of 1"):
        gradwatch.check(network.model, network.batches, cross_entropy, budget_seconds=1e-9)
    assert gradwatch.check(network.model, network.batches, cross_entropy, budget_seconds=1e6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": 0}, "whole number from 1, got 0"),
        ({"seeds": 1.0}, "whole number from 1, got 1.0"),
        ({"budget_seconds": 0}, "seconds above 0"),
    ],
)
def test_settings_that_mean_nothing(settings, words) -> None:
    network = make_mlp()
    with pytest.raises(InvalidInput, match=words):
        gradwatch.check(network.model, network.batches, cross_entropy, **settings)


def test_a_factory_needs_a_factory_of_the_optimizer() -> None:
    network = make_mlp()
    with pytest.raises(InvalidInput, match="function of the parameters"):
        gradwatch.check(lambda: make_mlp().model, network.batches, cross_entropy, network.optimizer)
    with pytest.raises(InvalidInput):
        gradwatch.check(lambda: "no model", network.batches, cross_entropy)
