"""Accumulation, clipping, several optimizers, closures, steps inside backward."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.capture.compilation import HAS_STANCE
from gradwatch.verdict.engine import diagnose
from tests.capture.tools import (
    assert_harmless,
    make_loop,
    read,
    read_param,
    watch_run,
)

needs_stance = pytest.mark.skipif(
    not HAS_STANCE, reason="torch.compiler.set_stance came with torch 2.6"
)


def make_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def make_data(count: int = 8) -> Tensor:
    torch.manual_seed(5)
    return torch.randn(count, 4, dtype=torch.float64)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_accumulation_equals_the_whole_batch(set_to_none: bool) -> None:
    x = make_data()

    def run(parts: int):
        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def loop() -> None:
            for _ in range(4):
                optimizer.zero_grad(set_to_none=set_to_none)
                for part in x.chunk(parts):
                    (model(part).square().mean() / parts).backward()
                optimizer.step()

        return watch_run(model, optimizer, loop)

    for whole, parts in zip(run(1), run(4), strict=True):
        assert parts.step("passes") == 4
        assert parts.param_values == pytest.approx(whole.param_values, rel=1e-6, nan_ok=True)
        for key in ("0", "1", "2"):
            for name in ("grad_output_l2_norm", "output_l2_norm", "derivative_mean"):
                found, expected = read(parts, name, key), read(whole, name, key)
                assert found == pytest.approx(expected, rel=1e-6, nan_ok=True), (key, name)


def test_gradients_are_those_before_clipping() -> None:
    x = make_data()
    model = make_net()
    (1000 * model(x).square().mean()).backward()
    expected = model[0].weight.grad.norm().item()
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        (1000 * model(x).square().mean()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    assert read_param(record, "grad_l2_norm", "0.weight") == pytest.approx(expected, rel=1e-6)
    total = math.hypot(
        *(read_param(record, "update_l2_norm", p.fqn) for p in record.layer_set.params)
    )
    assert total == pytest.approx(1e-4, rel=1e-3)  # what was stepped is the clipped gradient


def test_several_optimizers_of_one_loss_make_one_record_per_step() -> None:
    def build():
        model = make_net()
        optimizers = [torch.optim.SGD(model[0].parameters(), lr=0.1)]
        optimizers.append(torch.optim.Adam(model[2].parameters(), lr=0.01))
        x = make_data()

        def loop() -> None:
            for _ in range(5):
                model(x).square().mean().backward()
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()

        return model, optimizers, loop

    records = assert_harmless(build)
    assert [record.global_step for record in records] == [0, 1, 2, 3, 4]
    for record in records:
        assert not math.isnan(read_param(record, "grad_l2_norm", "0.weight"))
        assert not math.isnan(read_param(record, "grad_l2_norm", "2.weight"))
        assert record.step("passes") == 1
    rate = read_param(records[3], "update_l2_norm", "0.weight")
    grad = read_param(records[3], "grad_l2_norm", "0.weight")
    assert rate == pytest.approx(0.1 * grad, rel=1e-6)


def test_scheduled_steps_with_several_optimizers() -> None:
    """Arming happens between two optimizers' steps of one iteration; neither is mixed up."""
    model = make_net()
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model[0], model[2])]
    x, norms = make_data(), []

    def loop() -> None:
        for _ in range(12):
            model(x).square().mean().backward()
            norms.append([model[i].weight.grad.norm().item() for i in (0, 2)])
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

    records = watch_run(model, optimizers, loop, every_n_steps=5, first_steps=1)
    assert [record.global_step for record in records] == [0, 5, 10]
    for record in records:
        found = [read_param(record, "grad_l2_norm", f"{i}.weight") for i in (0, 2)]
        assert found == pytest.approx(norms[record.global_step], rel=1e-6)
        grad, update = (read_param(record, f"{n}_l2_norm", "2.weight") for n in ("grad", "update"))
        assert update == pytest.approx(0.1 * grad, rel=1e-6)


@pytest.mark.parametrize("n_critic", [1, 3])
def test_two_networks_that_take_turns(n_critic: int) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.critic = make_net(1), nn.Sequential(nn.Linear(2, 3), nn.Tanh())
            self.critic.append(nn.Linear(3, 1)).double()

    truth: list[tuple[str, float]] = []

    def build():
        torch.manual_seed(2)
        pair = Pair()
        optimizers = [
            torch.optim.SGD(pair.critic.parameters(), lr=0.01),
            torch.optim.SGD(pair.generator.parameters(), lr=0.01),
        ]
        x = make_data()

        def loop() -> None:
            truth.clear()
            for _ in range(4):
                for _ in range(n_critic):
                    optimizers[0].zero_grad()
                    fake = pair.critic(pair.generator(x).detach()).mean()
                    (fake - pair.critic(torch.randn_like(x[:, :2])).mean()).backward()
                    truth.append(("critic.0", pair.critic[0].weight.grad.norm().item()))
                    optimizers[0].step()
                optimizers[1].zero_grad()
                pair.critic(pair.generator(x)).mean().neg().backward()
                truth.append(("generator.0", pair.generator[0].weight.grad.norm().item()))
                optimizers[1].step()

        return pair, optimizers, loop

    records = assert_harmless(build)
    assert records
    for name in ("critic.0", "generator.0"):
        values = [value for owner, value in truth if owner == name]
        found = [read_param(record, "grad_l2_norm", f"{name}.weight") for record in records]
        found = [norm for norm in found if not math.isnan(norm)]
        assert found
        for norm in found:
            assert min(abs(norm - value) for value in values) <= 1e-6 * norm


def test_every_step_of_a_critic_is_recorded() -> None:
    """Once it is known that the generator comes after the fifth: the first four are two records."""
    generator, critic = nn.Linear(4, 4), nn.Linear(4, 1)
    pair = nn.ModuleDict({"generator": generator, "critic": critic})
    slow, fast = (torch.optim.SGD(network.parameters(), lr=0.01) for network in (generator, critic))
    x, truth = torch.randn(8, 4), []
    with gradwatch.watch(pair, [fast, slow], every_n_steps=1) as watching:
        for step in range(30):
            fast.zero_grad()
            critic(generator(x).detach()).square().mean().backward()
            truth.append(critic.weight.grad.norm().item())
            fast.step()
            if step % 5 == 4:
                slow.zero_grad()
                critic(generator(x)).mean().backward()
                slow.step()
        history = watching.report().history
    assert history is not None
    records = {record.global_step: record for record in history.records}
    assert sorted(records) == [0, 2, *range(4, 30)]
    for step, record in records.items():
        assert read_param(record, "grad_l2_norm", "critic.weight") == pytest.approx(truth[step])
        has_slow = not math.isnan(read_param(record, "update_l2_norm", "generator.weight"))
        assert has_slow == (step % 5 == 4), step


def test_lbfgs_records_the_first_evaluation_of_each_step() -> None:
    firsts: list[float] = []

    def build():
        model, x = make_net(), make_data()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
        firsts.clear()

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            evaluations.append(model[0].weight.grad.norm().item())
            return loss

        evaluations: list[float] = []

        def loop() -> list[float]:
            losses = []
            for _ in range(3):
                evaluations.clear()
                losses.append(optimizer.step(closure).item())
                firsts.append(evaluations[0])
            return losses

        return model, optimizer, loop

    records = assert_harmless(build)
    assert [record.step("passes") for record in records] == [1, 1, 1]
    found = [read_param(record, "grad_l2_norm", "0.weight") for record in records]
    assert found == pytest.approx(firsts, rel=1e-6)


@pytest.mark.parametrize("every_n_steps", [1, 3])
def test_optimizer_in_backward(every_n_steps: int) -> None:
    """One optimizer per parameter, which steps and clears as soon as its gradient is there."""
    truth: list[dict[str, float]] = []

    def build():
        model, x = make_net(), make_data()
        optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
        names = {p: name for name, p in model.named_parameters()}

        def step(param: Tensor) -> None:
            truth[-1][names[param]] = param.grad.norm().item()
            optimizers[param].step()
            optimizers[param].zero_grad()

        def loop() -> None:
            truth.clear()
            handles = [p.register_post_accumulate_grad_hook(step) for p in model.parameters()]
            for _ in range(7):
                truth.append({})
                model(x).square().mean().backward()
            for handle in handles:
                handle.remove()

        return model, list(optimizers.values()), loop

    records = assert_harmless(build, every_n_steps=every_n_steps, first_steps=1)
    steps = [record.global_step for record in records]
    assert steps == list(range(0, 7, every_n_steps))
    for record in records:
        for param in record.layer_set.params:
            expected = truth[record.global_step][param.fqn]
            found = read_param(record, "grad_l2_norm", param.fqn)
            assert found == pytest.approx(expected, rel=1e-6)
            assert read_param(record, "update_l2_norm", param.fqn) > 0
        assert read(record, "grad_output_l2_norm", "0") > 0


def test_a_model_without_an_optimizer_is_stepped_by_hand() -> None:
    model, x = make_net(), make_data()

    def loop(session) -> None:
        for _ in range(3):
            model.zero_grad()
            model(x).square().mean().backward()
            session.after_step(0, None)

    records = watch_run(model, (), loop, manual=True)
    assert [record.global_step for record in records] == [0, 1, 2]
    expected = model[0].weight.grad.norm().item()
    assert read_param(records[0], "grad_l2_norm", "0.weight") == pytest.approx(expected, rel=1e-6)


def test_gradients_that_were_discarded_do_not_count() -> None:
    """A pass whose gradients are cleared before any step, as after a skipped step."""
    model, x = make_net(), make_data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def loop() -> None:
        for scale, steps in ((1e6, False), (1.0, True)):
            optimizer.zero_grad()
            (scale * model(x).square().mean()).backward()
            if steps:
                optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    expected = watch_run(model, optimizer, make_loop(model, optimizer, x, steps=1))[0]
    assert record.step("passes") == 1
    assert record.layer_values == pytest.approx(expected.layer_values, rel=1e-6, nan_ok=True)


def test_frozen_and_unoptimized_parameters_are_distinguished() -> None:
    model, x = make_net(), make_data()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD([model[0].bias, model[2].weight], lr=0.1)
    record = watch_run(model, optimizer, make_loop(model, optimizer, x))[0]
    params = {param.fqn: param for param in record.layer_set.params}
    assert not params["0.weight"].trainable
    assert params["2.bias"].trainable
    assert not params["2.bias"].optimized
    assert params["2.weight"].optimized


class Inherited(torch.optim.SGD):
    """Steps through its base class; torch wraps ``step`` of each class that was ever made."""

    def step(self, closure=None):
        return super().step(closure)


class Lookahead(torch.optim.SGD):
    """Steps twice through its base class, and again after a step that failed."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, lr=lr)
        self.is_broken = False

    def step(self, closure=None):
        super().step(closure)
        if self.is_broken:
            raise ValueError("a step that fails")
        return super().step(closure)


@pytest.mark.parametrize("optimizer_class", [Inherited, Lookahead])
@pytest.mark.parametrize("every_n_steps", [1, 3])
def test_a_step_within_a_step_counts_once(optimizer_class, every_n_steps: int) -> None:
    torch.optim.SGD(make_net().parameters(), lr=0.1)  # from here on the base's step has hooks too

    def build():
        model = make_net()
        optimizer = optimizer_class(model.parameters(), lr=0.1)
        return model, optimizer, make_loop(model, optimizer, make_data(), steps=7)

    records = assert_harmless(build, every_n_steps=every_n_steps, first_steps=1)
    assert [record.global_step for record in records] == list(range(0, 7, every_n_steps))
    times = 2 if optimizer_class is Lookahead else 1
    for record in records:
        grad, update = (read_param(record, f"{n}_l2_norm", "2.weight") for n in ("grad", "update"))
        assert update == pytest.approx(times * 0.1 * grad, rel=1e-6)


def test_a_step_that_fails_is_no_step_and_hides_no_later_one() -> None:
    torch.optim.SGD(make_net().parameters(), lr=0.1)
    model, x = make_net(), make_data()
    optimizer = Lookahead(model.parameters(), lr=0.1)

    def loop() -> None:
        for step in range(6):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.is_broken = step in (1, 4)
            if optimizer.is_broken:
                with pytest.raises(ValueError, match="fails"):
                    optimizer.step()
            else:
                optimizer.step()

    records = watch_run(model, optimizer, loop, every_n_steps=1)
    assert [record.global_step for record in records] == [0, 1, 2, 3]


def test_an_optimizer_inside_another_counts_its_own_steps() -> None:
    """A wrapper that is an optimizer itself: each of the two is distinguished from the other."""

    class Wrapper(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.inner = inner
            super().__init__(inner.param_groups, {})

        def step(self, closure=None):
            return self.inner.step(closure)

    model, x = make_net(), make_data()
    inner = Inherited(model.parameters(), lr=0.1)
    outer = Wrapper(inner)
    loop = make_loop(model, outer, x, steps=4)
    for watched in (inner, outer):
        records = watch_run(model, watched, loop)
        assert [record.global_step for record in records] == [0, 1, 2, 3]


def test_lbfgs_that_steps_through_its_base() -> None:
    torch.optim.LBFGS(make_net().parameters())

    class Closing(torch.optim.LBFGS):
        def step(self, closure):
            return super().step(closure)

    model, x = make_net(), make_data()
    optimizer = Closing(model.parameters(), max_iter=4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    records = watch_run(model, optimizer, lambda: [optimizer.step(closure) for _ in range(3)])
    assert [record.step("passes") for record in records] == [1, 1, 1]


@needs_stance
def test_a_compiled_step() -> None:
    """The hooks of a compiled step run outside of what is compiled.

    A sampled step runs eagerly, which is another rounding in some versions of torch: the
    oracle, too, runs these steps eagerly.
    """
    torch.compiler.reset()
    sampled = [0, 3, 6]

    def run(watched: bool):
        model, x = make_net(), make_data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step = torch.compile(optimizer.step, backend="eager")

        def loop() -> None:
            for number in range(7):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                is_eager = number in sampled and not watched
                with torch.compiler.set_stance("force_eager") if is_eager else nullcontext():
                    step()

        records = watch_run(model, optimizer, loop, 3, first_steps=1) if watched else loop()
        return records, model[0].weight

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of its own while it compiles
        (_, bare), (records, weight) = run(False), run(True)
    assert [record.global_step for record in records] == sampled
    assert torch.equal(weight, bare)
    assert all(read_param(record, "update_l2_norm", "0.weight") > 0 for record in records)


def test_what_has_no_gradient_has_no_decay_to_take_out() -> None:
    model, x = make_net(), make_data()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)

    def loop() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            model[2](model[0](x).detach()).sum().backward()
            optimizer.step()

    record = watch_run(model, optimizer, loop)[-1]
    updates = dict(zip(record.layer_set.params, record.param("update_l2_norm"), strict=True))
    by_name = {param.fqn: update for param, update in updates.items()}
    assert by_name["0.weight"] == 0
    assert by_name["2.weight"] > 0


def test_nothing_is_known_of_parameters_whose_optimizer_waits() -> None:
    model, x = make_net(), make_data()
    optimizers = [torch.optim.SGD(model[index].parameters(), lr=0.1) for index in (0, 2)]

    def loop() -> None:
        for step in range(20):
            for optimizer in optimizers:
                optimizer.zero_grad()
            model(x).sum().backward()
            optimizers[step >= 10].step()

    records = watch_run(model, optimizers, loop)
    names = [param.fqn for param in records[0].layer_set.params]
    updates = records[0].param("update_l2_norm")
    assert updates[names.index("0.weight")] > 0
    assert np.isnan(updates[names.index("2.weight")])
    assert diagnose(records).healthy


def test_a_learning_rate_that_must_be_waited_for_travels_with_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU: on this device nothing has to wait, so the place of the tensor is pretended."""
    monkeypatch.setattr("gradwatch.capture.optimizer_state.HOST", "elsewhere")
    model = make_net()
    rate = torch.tensor(0.25)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    records = watch_run(model, optimizer, make_loop(model, optimizer, make_data()))
    assert [record.step("learning_rate") for record in records] == [0.25] * 3


class Adversaries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.made = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
        self.judge = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1)).double()


@pytest.mark.parametrize("order", [("judge", "made"), ("made", "judge")])
def test_what_both_steps_share_is_seen_at_every_interval(order: tuple[str, str]) -> None:
    """A generator runs once for two steps: sampling must not begin between them."""
    torch.manual_seed(0)
    model = Adversaries()
    optimizers = [torch.optim.SGD(getattr(model, name).parameters(), lr=0.01) for name in order]

    def loop() -> None:
        for _ in range(20):
            fake = model.made(torch.randn(4, 3).double())
            for name, optimizer in zip(order, optimizers, strict=True):
                model.zero_grad()
                judged = model.judge(fake if name == "made" else fake.detach())
                judged.square().mean().backward()
                optimizer.step()

    records = watch_run(model, optimizers, loop, every_n_steps=6, first_steps=2)
    assert [record.global_step for record in records] == [0, 1, 6, 12, 18]
    for record in records:
        assert read(record, "grad_output_l2_norm", "made.0") > 0
        assert read_param(record, "grad_l2_norm", "made.0.weight") > 0
        assert read_param(record, "grad_l2_norm", "judge.0.weight") > 0


def test_an_optimizer_that_steps_rarely_is_not_waited_for() -> None:
    model, x = make_net(), make_data()
    often, rarely = (torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 2))

    def loop() -> None:
        for step in range(21):
            model.zero_grad()
            model(x).square().mean().backward()
            often.step()
            if step % 5 == 4:
                rarely.step()

    records = watch_run(model, [often, rarely], loop, every_n_steps=6, first_steps=0)
    assert len(records) >= 3
    assert all(read_param(record, "grad_l2_norm", "0.weight") > 0 for record in records)
