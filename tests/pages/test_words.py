"""The page's words: a headline in one clause, and no more than is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gradwatch.display.figures.events import Event
from gradwatch.display.headline import headline, name_group, since
from gradwatch.display.page_data import write_brief
from gradwatch.display.run_facts import RunFacts, describe_facts, describe_state
from gradwatch.errors import NothingToJudge
from gradwatch.evidence.worked_example import make_record
from gradwatch.run_marks import OptimizerSettings, RunDescription, RunEnd, RunGap, RunHeader
from gradwatch.tensorboard_plugin.first_steps import gather_codes, restore_first_step
from gradwatch.verdict.coverage import Coverage, ParamState
from gradwatch.verdict.engine import diagnose
from gradwatch.verdict.findings import Finding, LayerSummary, Verdict
from gradwatch.wording.phrases import name_number


@pytest.mark.parametrize(
    ("factor", "words"),
    [(3_812_345, "3.8 million"), (190e9, "190 billion"), (12_345, "12,000"), (2.5, "2.5")],
)
def test_factors_read_as_a_person_says_them(factor: float, words: str) -> None:
    assert name_number(factor) == words


def test_neighbours_are_grouped() -> None:
    order = [f"fc{index}" for index in range(1, 13)]

    def say(layers: list[str]) -> str:
        return "".join(piece.text for piece in name_group(layers, order))

    assert say(["fc3", "fc1", "fc2"]) == "fc1 to fc3"
    assert say(["fc3", "fc1"]) == "fc1 and fc3"
    assert say(["fc9", "fc7", "fc3", "fc1"]) == "4 layers from fc1 to fc9"
    assert say(["fc1", "fc2", "fc3", "fc4", "fc9", "fc10", "fc11"]) == "fc1 to fc4 and fc9 to fc11"


def test_empty_run_says_so() -> None:
    assert headline(Verdict())[0].text == "No training step has been recorded yet"


def say(verdict: Verdict) -> str:
    return "".join(piece.text for piece in headline(verdict))


def make_unhealthy(
    kind: str, observed: float, cause: str | None = None, message: str = "m"
) -> Verdict:
    layers = ("act2", "fc2") if kind in ("dead", "saturated") else ("fc1", "fc2")
    code = "GW102" if cause == "through_time" else "GW000"
    finding = Finding(code, kind, "critical", cause, layers, 0, 9, observed, 0.1, message, "r")
    roles = {"fc1": "weight", "act1": "activation", "fc2": "weight", "act2": "activation"}
    nan = float("nan")
    rows = [LayerSummary(name, "", role, 0.5, nan, nan, nan, nan) for name, role in roles.items()]
    head = LayerSummary("fc3", "", "weight", 1.0, nan, nan, nan, nan)
    return Verdict((finding,), records=9, last_step=9, layers=(*rows, head))


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (make_unhealthy("vanishing", 1e-6), "fc1 gets 1 million times less gradient than fc3"),
        (make_unhealthy("vanishing", 0.0), "fc1 and fc2 get no gradient at all"),
        (make_unhealthy("vanishing", 1e-20), "fc1 and fc2 get practically no gradient"),
        (
            make_unhealthy("exploding", 1e6, None, "fc1.weight has grown to 9 times its size (a)."),
            "fc1.weight has grown to 9 times its size",
        ),
        (
            make_unhealthy("vanishing", 1e-4, "through_time"),
            "the first time steps of fc1 get 10,000 times less gradient than the last ones",
        ),
        (make_unhealthy("dead", 0.62), "62 % of the units of act2 never fire"),
        (
            make_unhealthy("saturated", 1.0),
            "100 % of the units of act2 are stuck where their slope is near zero",
        ),
        (
            make_unhealthy("nonfinite", 3.0, None, "the output of a is NaN; it is first (3)."),
            "the output of a is NaN",
        ),
    ],
)
def test_headline_is_one_clause(verdict: Verdict, words: str) -> None:
    assert say(verdict) == words


def make_coverage(*states: str) -> Coverage:
    return Coverage(tuple(ParamState(f"fc{i}.weight", s, "why") for i, s in enumerate(states)), 9)


def test_headline_of_a_healthy_run_says_no_more_than_is_known() -> None:
    nan = float("nan")
    full, faint = (
        LayerSummary("a", "", "weight", ratio, nan, nan, nan, nan) for ratio in (1.0, 1e-9)
    )
    few = Verdict(records=1, coverage=make_coverage("not_judged"))
    assert say(few) == "Not judged yet: 1 recorded step is too few to tell"
    proven = Verdict(records=9, coverage=make_coverage("learns", "learns"))
    assert say(proven) == "Every one of 2 weights learns"
    note = Finding(
        "GW801",
        "unmoved",
        "note",
        "not_optimized",
        ("crf",),
        3,
        8,
        0.0,
        0.0,
        "It stays.",
        "Add it.",
    )
    for last, words in ((8, "; no optimizer holds crf"), (5, "")):
        left = dataclasses.replace(
            proven, last_step=8, notes=(dataclasses.replace(note, last_step=last),)
        )
        assert say(left) == f"Every one of 2 weights learns{words}"
    rows: Any = {"step": {"loss": 2.3}, "param": {"update_l2_norm": 0.01}}
    still = diagnose(make_record(step, **rows) for step in range(40))
    assert say(still) == (
        "Not judged: 2 weights are trained, but the loss shows no fall by step 39, "
        "where each step was to take 22 % off it: lower the rate"
    )
    assert write_brief(still)["severity"] == "early"
    allowed = Verdict(records=40, coverage=make_coverage("learns"), course=still.course)
    assert write_brief(allowed)["severity"] == "noted"
    partly = Verdict(records=9, coverage=make_coverage("learns", "by_design"))
    assert say(partly) == "1 of 2 weights learn; the others need not"
    unseen = Verdict(records=9, coverage=make_coverage("learns", "not_judged"))
    assert say(unseen) == "Not judged: fc1.weight was not seen to learn"
    assert not unseen.healthy
    with pytest.raises(NothingToJudge, match=r"fc1\.weight"):
        unseen.raise_if()
    early = write_brief(
        Verdict(records=1, layers=(faint, full), coverage=make_coverage("not_judged"))
    )
    assert early["severity"] == "early"
    assert "no rule sees harm" not in early["summary"]
    assert (
        "1 billion times less" in write_brief(Verdict(records=9, layers=(faint, full)))["summary"]
    )


def test_a_finding_that_is_over_is_recalled() -> None:
    note = Finding(
        "GW101",
        "vanishing",
        "note",
        None,
        ("a",),
        0,
        98,
        0.1,
        0.2,
        "Recovered after step 98: m",
        "r",
    )
    gone = write_brief(Verdict(notes=(note,), records=99, last_step=200))["gone"]
    assert gone == ["Vanishing from step 0 to 98; over since."]


def make_finding(first: int, last: int) -> Finding:
    return Finding("GW101", "vanishing", "critical", None, ("a",), first, last, 0.1, 0.2, "m", "r")


def test_since_tells_what_is_over() -> None:
    verdict = Verdict(first_step=0, last_step=99)
    assert since(make_finding(0, 99), verdict) == "Since the first step, still so at step 99."
    assert since(make_finding(7, 50), verdict) == "Since step 7, last seen at step 50 of 99."


def test_first_step_comes_from_the_text_where_sampling_dropped_it() -> None:
    began = gather_codes([(120, "### Vanishing (critical, GW101)"), (400, "GW101 and GW301")])
    sampled = [0, 100, 150, 500]
    assert restore_first_step(make_finding(150, 500), sampled, began).first_step == 120
    assert restore_first_step(make_finding(500, 500), sampled, began).first_step == 400
    assert restore_first_step(make_finding(100, 500), sampled, began).first_step == 100


def make_facts(**end: object) -> RunFacts:
    about = RunDescription(
        "MLP", 1200, 1000, optimizers=(OptimizerSettings("AdamW", (1e-3,), (0.01,)),),
        dtypes=("float32",), devices=("cpu",), every_n_steps=50, torch_version="2.13.0",
        batch_size=4096,
    )  # fmt: skip
    header = RunHeader("ab", started_at=1e9, python_version="3.11.7", description=about)
    finish = RunEnd("ab", **end) if end else None  # type: ignore[arg-type]
    times = (1e9, 1e9 + 2, 1e9 + 40)
    return RunFacts(header, finish, written_at=times, rates=(1e-3, 1e-5), passes=4.0)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ({}, "running"),
        ({"how": "detached", "last_step": 412}, "ended"),
        ({"how": "exception", "detail": "RuntimeError", "last_step": 412}, "crashed"),
        ({"how": "failure", "detail": "ours", "last_step": 412}, "failed"),
    ],
)
def test_the_state_of_a_run_is_that_of_its_marks(end: dict[str, object], how: str) -> None:
    state = describe_state(make_facts(**end))
    assert (state["how"], state["last"]) == (how, 1e9 + 40)
    assert state["patience"] == 5 * 38  # times the longest wait so far
    assert describe_state(RunFacts())["how"] == "unknown"


def test_what_was_trained_is_said_in_lines() -> None:
    verdict = Verdict(records=9, last_step=99, coverage=make_coverage("learns", "learns"))
    rows = dict(map(tuple, describe_facts(make_facts(), verdict)))
    assert rows["Parameters"] == "1,200, 200 of them frozen"
    assert rows["Optimizer"] == "AdamW, weight decay 0.01"
    assert rows["Learning rate"] == "0.001 at first, 1e-05 at the last record"
    assert rows["Batch"] == "4,096 samples a step"
    assert rows["Accumulation"] == "4 backward passes per step"
    assert rows["Coverage"] == "2 of 2 weights seen to learn"
    assert rows["Records"].endswith("at least every 50 steps")


def test_a_healthy_run_that_wants_a_word_is_not_green() -> None:
    nan = float("nan")
    known = {"records": 9, "coverage": make_coverage("learns")}
    dead = LayerSummary("act", "ReLU", "activation", 1.0, nan, nan, 0.59, nan)
    brief = write_brief(Verdict(layers=(dead,), **known))
    assert brief["severity"] == "noted"
    assert "59 % of the units of act are dead; it can be a finding from 60 %" in brief["events"][0]
    fall = Event(200, 210, True, "the gradient of fc1 fell 120 times", 2.1)
    brief = write_brief(Verdict(**known), events=[fall])
    assert brief["severity"] == "noted"
    assert brief["events"][0].startswith("Between steps 200 and 210, the gradient of fc1 fell")
    assert write_brief(Verdict(**known))["severity"] == "healthy"
    lost = RunFacts(gaps=(RunGap("ab", 3, 5, "disk full"),))
    brief = write_brief(Verdict(**known), facts=lost)
    assert brief["severity"] == "noted"
    assert "3 records" in " ".join(brief["unseen"])
    thinned = dataclasses.replace(make_facts(records=5, last_step=9), recorded=3)
    brief = write_brief(Verdict(**known), facts=thinned)
    assert (brief["severity"], brief["unseen"][0][:18]) == ("noted", "2 records missing:")
    whole = dataclasses.replace(thinned, recorded=5)
    assert write_brief(Verdict(**known), facts=whole)["severity"] == "healthy"
    crashed = make_facts(how="exception", detail="RuntimeError", last_step=9)
    assert write_brief(Verdict(**known), facts=crashed)["severity"] == "noted"


def test_layers_whose_name_is_a_number_are_known_by_their_type() -> None:
    nan = float("nan")
    finding = dataclasses.replace(make_finding(0, 9), layers=("0", "2"), observed=1e-6)
    rows = [LayerSummary(n, "Linear", "weight", 1.0, nan, nan, nan, nan) for n in ("0", "2", "4")]
    verdict = Verdict((finding,), records=9, last_step=9, layers=tuple(rows))
    assert say(verdict) == (
        "layer 0 (Linear) gets 1 million times less gradient than layer 4 (Linear)"
    )
