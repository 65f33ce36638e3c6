"""A cut is named by the line that makes it; what nothing uses is no cut."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gradwatch
from tests.families.training import list_kinds, make_labelled, train


class Coder(nn.Module):
    """An encoder, something in between, and a decoder."""

    def __init__(self, between: Callable[[Coder, Tensor], Tensor]) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 6))
        self.table, self.dec = nn.Embedding(6, 6), nn.Linear(6, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.dec(self.between(self, self.enc(x)))


def call_detach(_: Coder, h: Tensor) -> Tensor:
    return h.clone().detach()  # the line


def take_data(_: Coder, h: Tensor) -> Tensor:
    return h.data  # the line


def detach_in_place(_: Coder, h: Tensor) -> Tensor:
    h = h * 1
    return h.detach_()  # the line


def run_without_grad(_: Coder, h: Tensor) -> Tensor:
    with torch.no_grad():
        return h * 2  # the line


def make_numbers(_: Coder, h: Tensor) -> Tensor:
    return torch.tensor(h.tolist())  # the line


def go_by_numpy(_: Coder, h: Tensor) -> Tensor:
    return torch.from_numpy(h.detach().numpy() / 2)  # the line


def read_items(_: Coder, h: Tensor) -> Tensor:
    return h.new_full(h.shape, h.mean().item())  # the line


def round_codes(_: Coder, h: Tensor) -> Tensor:
    return torch.round(4 * h) / 4  # the line


def take_signs(_: Coder, h: Tensor) -> Tensor:
    return h.sign()  # the line


def compare(_: Coder, h: Tensor) -> Tensor:
    return (h > 0).float()  # the line


def mask_in_place(_: Coder, h: Tensor) -> Tensor:
    mask = torch.zeros_like(h)
    mask[h > 0] = 1.0  # the line
    return mask


def cast(_: Coder, h: Tensor) -> Tensor:
    return (8 * h).long().float()  # the line


def choose(model: Coder, h: Tensor) -> Tensor:
    return model.table(h.argmax(-1))  # the line


def choose_best(model: Coder, h: Tensor) -> Tensor:
    return model.table(h.topk(1).indices[:, 0])  # the line


def draw(_: Coder, h: Tensor) -> Tensor:
    return torch.distributions.Normal(h, 1.0, validate_args=False).sample()  # the line


def draw_bits(_: Coder, h: Tensor) -> Tensor:
    return torch.bernoulli(h.sigmoid())  # the line


CUTS = (
    (call_detach, "`detach()`"),
    (take_data, "`.data`"),
    (detach_in_place, "`detach()`"),
    (run_without_grad, "`torch.no_grad()`"),
    (make_numbers, "`tolist()`"),
    (go_by_numpy, "`numpy()`"),
    (read_items, "`item()`"),
    (round_codes, "straight-through"),
    (take_signs, "straight-through"),
    (compare, "comparison"),
    (mask_in_place, "comparison"),
    (cast, "`long()`"),
    (choose, "`argmax()`"),
    (choose_best, "`topk()`"),
    (draw, "rsample()"),
    (draw_bits, "`bernoulli()`"),
)


def find_line(function: Callable[..., object]) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if "# the line" in line)


@pytest.mark.parametrize(("between", "says"), CUTS)
def test_the_line_of_a_cut_is_named(between, says):
    torch.manual_seed(0)
    report = train(Coder(between), make_labelled(8, 3), 20)
    (finding,) = report.findings
    assert (finding.kind, finding.severity) == ("disconnected", "critical")
    assert finding.layers == ("enc.0", "enc.2")
    assert finding.source.endswith(f"test_cuts.py:{find_line(between)}")
    assert finding.source in finding.message
    assert between.__name__ in finding.message
    assert says in finding.remedy


def pass_on(_: Coder, h: Tensor) -> Tensor:
    return h


def look_only(_: Coder, h: Tensor) -> Tensor:
    assert not torch.isnan(h.detach()).any()
    return h + 0 * h.detach().norm() + (h.round() - h).detach()


@pytest.mark.parametrize("between", [pass_on, look_only])
def test_values_that_are_looked_at_beside_their_way_are_no_cut(between):
    torch.manual_seed(0)
    report = train(Coder(between), make_labelled(8, 3), 20)
    assert list_kinds(report) == []


@pytest.mark.parametrize("how", ["detach", "no_grad"])
def test_between_two_calls_the_line_is_named(how):
    torch.manual_seed(0)
    model = Coder(pass_on)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    batch = make_labelled(8, 3)
    with gradwatch.watch(model, optimizer) as watch:
        for step in range(20):
            x, y = batch(step)
            with torch.set_grad_enabled(how != "no_grad"):
                code = model.enc(x)
            code = code.detach() if how == "detach" else code
            loss = nn.functional.cross_entropy(model.dec(code), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    lines, first = inspect.getsourcelines(test_between_two_calls_the_line_is_named)
    what = "code.detach()" if how == "detach" else "model.enc(x)"
    line = first + next(i for i, line in enumerate(lines) if what in line)
    (finding,) = watch.report().findings
    assert finding.source.endswith(f"test_cuts.py:{line}")


class TwoHeads(nn.Module):
    def __init__(self, names: tuple[str, str], cut: bool) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 24), nn.GELU())
        self.cut, self.names = cut, names
        for name in names:
            self.add_module(name, nn.Linear(24, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        first, second = (getattr(self, name)(h) for name in self.names)
        return (first.detach() if self.cut else first), second


@pytest.mark.parametrize("names", [("pooler", "classes"), ("mlp_head", "own")])
@pytest.mark.parametrize("cut", [False, True])
def test_an_output_that_nothing_uses_is_a_note(names, cut):
    torch.manual_seed(0)

    def loss_fn(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(out[1], y)
        return loss + nn.functional.cross_entropy(out[0], y) if cut else loss

    report = train(TwoHeads(names, cut), make_labelled(8, 3), 30, loss_fn=loss_fn)
    assert list_kinds(report) == (["disconnected"] if cut else [])
    said = report.findings if cut else report.notes
    assert [finding.layers for finding in said if finding.kind == "disconnected"] == [(names[0],)]


@pytest.mark.parametrize("left_out", ["enc", "dec"])
def test_what_no_optimizer_holds_is_a_note(left_out):
    torch.manual_seed(0)
    model = Coder(pass_on)
    held = [p for name, p in model.named_parameters() if not name.startswith(left_out)]
    report = train(model, make_labelled(8, 3), 30, torch.optim.SGD(held, 0.1))
    assert report.findings == ()
    (note,) = (note for note in report.notes if note.kind == "unmoved")
    assert "No watched optimizer" in note.message
    assert {layer.split(".")[0] for layer in note.layers} == {left_out}
    numel = {name: p.numel() for name, p in model.named_parameters()}
    moved = [n for n in numel if not n.startswith((left_out, "table"))]
    assert report.trains.tensors == len(moved)
    assert report.trains.elements == sum(numel[fqn] for fqn in moved)
    assert f"{len(moved)} of {len(numel)} tensors train" in str(report)


def test_frozen_on_purpose_is_no_note():
    torch.manual_seed(0)
    model = Coder(pass_on)
    model.enc.requires_grad_(False)
    report = train(model, make_labelled(8, 3), 30)
    assert not any("No watched optimizer" in note.message for note in report.notes)
    assert report.healthy


class Owner:
    """Holds a network and calls it as people do: some of what counts happens out here."""

    def __init__(self, between: Callable[[Coder, Tensor], Tensor]) -> None:
        self.model, self.between = Coder(pass_on), between

    def measure_loss(self, x: Tensor, y: Tensor) -> Tensor:
        code = self.between(self.model, self.model.enc(x))
        return nn.functional.cross_entropy(self.model.dec(code), y)


def run_owner(owner: Owner, steps: int = 20) -> gradwatch.Report:
    optimizer = torch.optim.Adam(owner.model.parameters(), 1e-2)
    batch = make_labelled(8, 3)
    with gradwatch.watch(owner.model, optimizer) as watch:
        for step in range(steps):
            loss = owner.measure_loss(*batch(step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert not torch.overrides._get_current_function_mode_stack()
    assert watch.failure is None
    return watch.report()


OUTSIDE = (call_detach, take_data, run_without_grad, round_codes, compare, cast, choose, draw)


@pytest.mark.parametrize("between", OUTSIDE)
def test_a_cut_outside_of_forward_is_named_by_its_line(between):
    torch.manual_seed(0)
    (finding,) = run_owner(Owner(between)).findings
    assert finding.layers == ("enc.0", "enc.2")
    assert finding.source.endswith(f"test_cuts.py:{find_line(between)}")


def log_values(_: Coder, h: Tensor) -> Tensor:
    assert (h > 0).float().mean().item() >= 0
    assert h.detach().norm() > 0
    return h


@pytest.mark.parametrize("between", [look_only, log_values])
def test_what_is_logged_outside_of_forward_is_no_cut(between):
    torch.manual_seed(0)
    assert run_owner(Owner(between)).findings == ()


def test_an_unused_output_that_is_logged_stays_a_note():
    torch.manual_seed(0)

    def loss_fn(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        assert (out[0].argmax(1) == y).float().mean() >= 0
        assert out[0].detach().mean().item() < 1e3
        return nn.functional.cross_entropy(out[1], y)

    report = train(TwoHeads(("pooler", "own"), False), make_labelled(8, 3), 30, loss_fn=loss_fn)
    assert list_kinds(report) == []


def through_numpy(_: Coder, h: Tensor) -> Tensor:
    return torch.from_numpy(h.detach().numpy())  # the line


def through_a_list(_: Coder, h: Tensor) -> Tensor:
    return torch.tensor(h.tolist())  # the line


@pytest.mark.parametrize("between", [through_numpy, through_a_list])
def test_numbers_that_are_made_between_two_watches_are_named_by_their_line(between):
    torch.manual_seed(0)
    coder, batch = Coder(between), make_labelled(8, 3)
    optimizer = torch.optim.Adam(coder.parameters(), 3e-3)
    with gradwatch.watch(coder.enc, optimizer) as first, gradwatch.watch(coder.dec, optimizer):
        for step in range(12):
            x, y = batch(step)
            optimizer.zero_grad()
            codes = between(coder, coder.enc(x))
            nn.functional.cross_entropy(coder.dec(codes), y).backward()
            optimizer.step()
    report = first.report()
    assert not report.healthy
    (note,) = report.notes
    assert f"test_cuts.py:{find_line(between)}" in note.message


def test_a_cut_in_the_loss_function_is_named_by_its_line():
    torch.manual_seed(0)

    def loss_fn(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(out[1], y)
        return loss + nn.functional.cross_entropy(out[0].data, y)  # the line

    report = train(TwoHeads(("first", "own"), False), make_labelled(8, 3), 30, loss_fn=loss_fn)
    (finding,) = report.findings
    assert finding.layers == ("first",)
    assert finding.source.endswith(f"test_cuts.py:{find_line(loss_fn)}")


def squash(_: Coder, h: Tensor) -> Tensor:
    return torch.tanh(200 * h)


def test_an_activation_outside_of_forward_is_seen():
    torch.manual_seed(0)
    report = run_owner(Owner(squash), 30)
    assert list_kinds(report)
    assert any("(outside):tanh" in finding.layers for finding in report.findings)
    assert "outside of forward" in report.findings[0].remedy


class Pair(nn.Module):
    """Returns two values, of which one comes out of modules of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.second(x).relu() + 1, self.first(x) * x


def test_a_value_of_a_pair_that_nothing_uses_is_a_note():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), Pair())

    def loss_fn(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out[0], y)

    report = train(model, make_labelled(8, 3), 30, loss_fn=loss_fn)
    assert list_kinds(report) == []
    assert ("1.first",) in [note.layers for note in report.notes]


def test_a_mode_of_the_users_around_the_loop_is_left_in_place():
    torch.manual_seed(0)
    with torch.device("cpu"):
        before = torch.overrides._get_current_function_mode_stack()
        train(Coder(pass_on), make_labelled(8, 3), 3)
        assert torch.overrides._get_current_function_mode_stack() == before


def test_a_mode_of_the_users_after_forward_is_left_in_place():
    torch.manual_seed(0)

    def loss_fn(out: Tensor, y: Tensor) -> Tensor:
        with torch.device("cpu"):
            assert len(torch.overrides._get_current_function_mode_stack()) == 2
            loss = nn.functional.cross_entropy(out, y)
        assert len(torch.overrides._get_current_function_mode_stack()) == 1
        return loss

    train(Coder(pass_on), make_labelled(8, 3), 3, loss_fn=loss_fn)
    assert not torch.overrides._get_current_function_mode_stack()
