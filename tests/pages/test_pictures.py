"""Pictures and words without a browser: what is in them, and what must never be."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from gradwatch.display import html
from gradwatch.display.figures import FIGURES, build_figures, build_payload, draw_figure, palette
from gradwatch.display.figures.events import find_events
from gradwatch.display.figures.names import shorten
from gradwatch.display.figures.palette import gradient_scale
from gradwatch.display.figures.rows import SHARES
from gradwatch.display.figures.series import Series, series_of, thin
from gradwatch.display.static_heatmap import write_png
from gradwatch.errors import InvalidInput, NothingToJudge
from gradwatch.records import LAYER_STATISTICS, PARAM_STATISTICS, STEP_STATISTICS
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import diagnose
from gradwatch.verdict.findings import Verdict
from tests.pages.synthetic import HOSTILE, make_layer_set, make_records, name_long


def make_series(n_layers: int = 12, n_steps: int = 30, **how: float) -> Series:
    return series_of(list(make_records(make_layer_set(n_layers), list(range(n_steps)), **how)))


def make_verdict(n_layers: int = 12, run: str = "r", **how: float) -> Verdict:
    layers = make_layer_set(n_layers, name=lambda index: f"{HOSTILE}{index}")
    return diagnose(make_records(layers, list(range(30)), **how), run=run)


def decode(spec: dict[str, str]) -> np.ndarray:
    kinds = {"f4": "<f4", "i2": "<i2", "i4": "<i4", "u1": "u1"}
    flat = np.frombuffer(base64.b64decode(spec["bdata"]), dtype=kinds[spec["dtype"]])
    return flat.reshape([int(part) for part in spec["shape"].split(",")])


def test_heatmap_holds_the_gradient_relative_to_the_last_layer() -> None:
    logs = decode(FIGURES["profile"](make_series(gain=0.1))["data"][0]["z"])  # type: ignore[index]
    assert logs[-1] == pytest.approx(np.zeros(30))
    assert np.diff(logs.mean(axis=1)) == pytest.approx(np.full(11, 1.0), abs=0.1)


def test_gain_is_split_between_activation_and_weight() -> None:
    gains = make_series(gain=0.1).gains.mean(axis=2)
    activation, weight = gains[SHARES.index("activation")], gains[SHARES.index("weight")]
    assert activation[:-1] == pytest.approx(np.full(11, -1.0), abs=0.1)
    assert np.isnan(activation[-1])
    assert np.isnan(weight[0])
    assert np.abs(weight[1:]).max() < 0.1


def test_bars_and_heatmap_share_the_axis_of_layers() -> None:
    figure = FIGURES["profile"](make_series())
    assert figure is not None
    heatmap, *bars = figure["data"]
    assert bars
    assert all(bar["y"] == heatmap["y"] and "yaxis" not in bar for bar in bars)


def test_half_zeros_after_relu_are_not_drawn_as_disease() -> None:
    records = list(make_records(make_layer_set(4, "ReLU"), list(range(9)), dead=0.01))
    assert build_figures(series_of(records))["dead"] is None
    assert build_figures(series_of(records))["saturated"] is None
    unhealthy = list(make_records(make_layer_set(4, "ReLU"), list(range(9)), dead=0.9))
    assert build_figures(series_of(unhealthy))["dead"] is not None


def test_columns_are_limited_and_keep_both_ends() -> None:
    assert thin(range(10_000), 600)[0] == 0
    assert thin(range(10_000), 600)[-1] == 9_999
    assert len(thin(range(10_000), 600)) <= 600
    assert thin(range(5), 600) == [0, 1, 2, 3, 4]


def test_layers_that_come_and_go_leave_gaps() -> None:
    early = list(make_records(make_layer_set(3), [0, 1]))
    late = list(make_records(make_layer_set(5), [2, 3]))
    series = series_of([*early, *late])
    assert series.names == ("fc1", "fc2", "fc3", "fc4", "fc5")
    assert np.isnan(series.relative[3:, :2]).all()
    assert np.isfinite(series.relative[:, 2:]).all()


@pytest.mark.parametrize("extreme", [0.0, np.inf, np.nan])
def test_figures_are_strict_json_whatever_was_measured(extreme: float) -> None:
    records = list(make_records(make_layer_set(4), [0, 1, 2]))
    for record in records[1:]:
        record.layer_values[:, 1:4] = extreme
        record.param_values[:, 1] = extreme
    text = json.dumps(build_figures(series_of(records)), allow_nan=False)
    assert "bdata" in text


def test_a_layer_that_lets_nothing_through_does_not_set_the_scale() -> None:
    records = list(make_records(make_layer_set(4), [0, 1, 2], gain=0.25))
    for record in records:
        record.layer_values[LAYER_STATISTICS.index("grad_input_l2_norm"), 3] = 0.0
    figure = FIGURES["profile"](series_of(records))
    assert figure is not None
    assert figure["layout"]["xaxis2"]["range"][1] < 1.0
    assert figure["data"][1]["customdata"][1] == "nothing gets through"


def test_nothing_is_said_of_units_whose_output_is_no_number() -> None:
    records = list(make_records(make_layer_set(3, "ReLU"), [0, 1], dead=1.0))
    records[1].layer_values[LAYER_STATISTICS.index("output_l2_norm")] = np.inf
    dead = series_of(records).dead
    assert (dead[:, 0] == 1).all()
    assert np.isnan(dead[:, 1]).all()


def test_gaps_are_grey_and_a_full_heatmap_has_none() -> None:
    records = list(make_records(make_layer_set(3), [0, 1]))
    whole = FIGURES["profile"](series_of(records))
    records[1].layer_values[LAYER_STATISTICS.index("grad_output_l2_norm")] = np.nan
    broken = FIGURES["profile"](series_of(records))
    assert whole is not None
    assert broken is not None
    assert not whole["layout"]["meta"]["gaps"]
    assert len(broken["layout"]["shapes"]) == len(whole["layout"]["shapes"]) + 1


@pytest.mark.parametrize("kind", ["Sigmoid", "Tanh", "ReLU", "GELU", "LogSigmoid"])
def test_shares_and_curves_have_their_zero_at_one_height(kind: str) -> None:
    layers = make_layer_set(3, kind)
    figure = FIGURES["units"](series_of(list(make_records(layers, [0], histogram_every=1))))
    assert figure is not None
    low, high = zip(*(figure["layout"][axis]["range"] for axis in ("yaxis", "yaxis2")), strict=True)
    heights = -np.array(low) / (np.array(high) - np.array(low))
    assert heights[0] == pytest.approx(heights[1], abs=1e-3)
    assert min(figure["layout"]["yaxis"]["tickvals"]) == 0
    assert figure["layout"]["xaxis"]["range"] in ([-4, 4], [-6, 6], [-8, 8])


def test_words_with_numbers_survive_shortening() -> None:
    names = [
        f"bert.encoder.layer.{i}.attention.{part}"
        for i in range(12)
        for part in ("q", "output.dense")
    ]
    short = shorten(["bert.embeddings", *names, "bert.pooler"])
    assert len(set(short)) == 26
    assert max(map(len, short)) <= 24
    flat = [f"model_encoder_blocks_{i:03d}_feedforward_projection_linear_inner" for i in range(20)]
    assert shorten(flat)[7] == "…blocks_007…"


def test_names_stay_apart_when_shortened() -> None:
    short = shorten([name_long(index) for index in range(100)])
    assert len(set(short)) == 100
    assert max(map(len, short)) <= 24


def test_plotly_accepts_every_figure() -> None:
    pytest.importorskip("plotly")
    verdict = make_verdict(saturated=0.5)
    for name in ("profile", "saturated", "updates"):
        assert draw_figure(verdict, name).data
    said = draw_figure(verdict).data[0].text[0][-1]
    assert re.fullmatch(r"\d+ million times less gradient than the last layers", said)
    moved = draw_figure(verdict, "updates").data[1].customdata[0]
    assert moved.startswith("a step moves it by 1 part in ")
    with pytest.raises(InvalidInput, match="profile"):
        draw_figure(verdict, "nonsense")
    with pytest.raises(NothingToJudge):
        draw_figure(Verdict(), "profile")


def test_colour_scale_is_fixed_so_that_runs_compare() -> None:
    assert gradient_scale(False)[1:] == (-8.0, 0.0)
    assert gradient_scale(True)[1:] == (-8.0, 8.0)


class Tags(HTMLParser):
    """Every tag that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs), (tag, attrs)


def test_hostile_names_stay_text_in_html() -> None:
    verdict = make_verdict(run="</script><script>alert(1)</script>")
    tags = Tags()
    tags.feed(html.write_fragment(verdict))
    assert "script" not in tags.seen
    assert "b" not in tags.seen
    page = html.write_page([verdict])
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def test_page_needs_no_network_and_stays_small() -> None:
    pytest.importorskip("plotly")
    records = list(make_records(make_layer_set(120, "Tanh"), list(range(400)), gain=0.97))
    verdicts = [diagnose(records, run=f"run {index}") for index in range(3)]
    page = html.write_page(verdicts)
    assert len(page.encode()) < html.MAX_PAGE_BYTES
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)
    assert page.count("gradwatch-figures-") >= 3


def test_page_without_plotly_still_has_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html.assets, "read_plotly", lambda: None)
    page = html.write_page([make_verdict()])
    assert '"plotly":false' in page
    assert "pip install" in page


def test_a_notebook_shows_the_cards_without_a_script() -> None:
    records = list(make_records(make_layer_set(6), list(range(30)), saturated=0.6))
    for step, record in enumerate(records):
        record.step_values[STEP_STATISTICS.index("loss")] = 2.0 / (step + 1)
    fragment = html.write_fragment(diagnose(records))
    assert fragment.count("<img ") == 3  # who learns, the gradient, saturated units
    assert "Who learns" in fragment
    assert 'aria-label="Loss from 2 at step 0 to 0.0667"' in fragment
    pytest.importorskip("plotly")
    shown = draw_figure(diagnose(records), "who_learns")._repr_mimebundle_()
    assert "<img " in shown["text/html"] or "plotly" in shown["text/html"]


def test_a_sudden_fall_is_an_event_with_its_steps() -> None:
    steps = [*range(10), *range(50, 300, 10)]
    falls = make_records(make_layer_set(8), steps, gain=lambda step: 1.0 if step < 210 else 0.3)
    (event,) = find_events(series_of(list(falls)))
    assert (event.before, event.step, event.is_worse) == (200, 210, True)
    assert event.when == "between steps 200 and 210"
    assert "fell" in event.text
    steady = make_records(make_layer_set(8), steps, gain=1.0)
    assert find_events(series_of(list(steady))) == []


def test_colours_change_where_the_thresholds_say() -> None:
    limits = Thresholds(profile=1e-2)
    edges = [at for at, colour in palette.fade_below(limits.profile) if colour == "#d3e5f0"]
    assert edges == [pytest.approx(0.75)]
    assert [at for at, _ in palette.share_scale(0.6)] == [0.0, 0.6, 0.6, 1.0]
    drawn = FIGURES["updates"](make_series())
    assert drawn is not None
    assert drawn["layout"]["shapes"][0]["x1"] == pytest.approx(-4.5)


def test_it_opens_at_the_last_step_that_has_most_values() -> None:
    records = list(make_records(make_layer_set(4), list(range(9))))
    for record in records[6:]:
        record.layer_values[LAYER_STATISTICS.index("grad_output_l2_norm"), :4] = np.nan
    figure = FIGURES["profile"](series_of(records))
    assert figure is not None
    assert figure["layout"]["meta"]["last"] == 5


def test_png_is_well_formed() -> None:
    png = write_png(np.zeros((3, 5, 3), dtype=np.uint8))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    assert png[16:24] == (5).to_bytes(4, "big") + (3).to_bytes(4, "big")


def test_who_learns_shows_the_layers_that_do_nothing() -> None:
    figure = FIGURES["who_learns"](make_series(gain=0.1))
    assert figure is not None
    logs = decode(figure["data"][0]["z"])
    assert (logs >= -8).all()
    assert (logs[0] == -8).all()  # the input layer's share is some 1e-20
    assert (logs[-1] > -0.1).all()
    np.testing.assert_allclose((10.0**logs).sum(axis=0), 1.0, atol=0.02)


def test_who_learns_leaves_a_gap_where_a_layer_is_frozen() -> None:
    records = list(make_records(make_layer_set(4), [0, 1]))
    first = PARAM_STATISTICS.index("loss_change")
    records[1].param_values[first, 2] = np.nan
    logs = decode(FIGURES["who_learns"](series_of(records))["data"][0]["z"])  # type: ignore[index]
    assert np.argwhere(np.isnan(logs)).tolist() == [[2, 1]]


def test_who_learns_says_why_it_is_empty() -> None:
    records = list(make_records(make_layer_set(4), [0, 1]))
    for record in records:
        record.param_values[PARAM_STATISTICS.index("loss_change")] = np.nan
    payload = build_payload(series_of(records))
    assert payload["figures"]["who_learns"] is None
    assert payload["cards"][0]["name"] == "who_learns"
    assert "no optimizer was watched" in payload["cards"][0]["empty"]
