"""Sparse gradients, complex numbers, fake quantisation, parametrisations, lazy and new modules."""

from __future__ import annotations

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradwatch.capture.session import Session
from tests.capture.tools import (
    assert_harmless,
    list_keys,
    make_loop,
    read,
    read_param,
    train,
    watch_run,
)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_gradients(kind: type[nn.Module]) -> None:
    def build():
        torch.manual_seed(0)
        model = nn.Sequential(kind(20, 4, sparse=True), nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ids = torch.randint(0, 20, (6, 3))
        return model, optimizer, make_loop(model, optimizer, ids)

    record = assert_harmless(build)[0]
    torch.manual_seed(1)
    model, _, _ = build()
    torch.manual_seed(0)
    nn.Sequential(kind(20, 4, sparse=True), nn.Linear(4, 2))
    model(torch.randint(0, 20, (6, 3))).square().mean().backward()
    expected = model[0].weight.grad.to_dense().norm().item()
    assert read_param(record, "grad_l2_norm", "0.weight") == pytest.approx(expected, rel=1e-5)


def test_complex_parameters() -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 4, dtype=torch.complex128))

        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.irfft(torch.fft.rfft(x) @ self.weight, n=6)

    def make():
        return nn.Sequential(Spectral(), nn.Linear(6, 2).double()), torch.randn(3, 8).double()

    record = assert_harmless(train(make))[0]
    torch.manual_seed(1)
    model, x = make()
    model(x).square().mean().backward()
    expected = model[0].weight.grad.abs().square().sum().sqrt().item()
    assert read_param(record, "grad_l2_norm", "0.weight") == pytest.approx(expected, rel=1e-6)
    assert read_param(record, "nonfinite_count", "0.weight") == 0


def test_complex_activations() -> None:
    def make():
        linear = partial(nn.Linear, dtype=torch.complex64)
        model = nn.Sequential(linear(4, 4), nn.Tanh(), linear(4, 2))
        return model, torch.randn(3, 4, dtype=torch.complex64)

    build = train(make, loss_fn=lambda y: y.abs().square().mean())
    record = assert_harmless(build)[0]
    assert read(record, "grad_output_l2_norm", "0") > 0


def test_fake_quantisation() -> None:
    quantization = pytest.importorskip("torch.ao.quantization")

    def make():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
            model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
            model = quantization.prepare_qat(model.train())
        return model, torch.randn(9, 4)

    record = assert_harmless(train(make))[0]
    assert {"0", "1", "2"} <= set(list_keys(record))
    assert read(record, "grad_output_l2_norm", "0") > 0


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrisations(kind: str) -> None:
    wrap = getattr(nn.utils.parametrizations, kind)

    def make():
        model = nn.Sequential(wrap(nn.Linear(4, 6)), nn.ReLU(), wrap(nn.Linear(6, 2)))
        return model, torch.randn(5, 4)

    records = assert_harmless(train(make))
    keys = list_keys(records[0])
    assert {"0", "1", "2"} <= set(keys)
    assert all((record.param("grad_l2_norm") >= 0).all() for record in records)
    roles = {param.fqn.rpartition(".")[2]: param.role for param in records[0].layer_set.params}
    if kind == "weight_norm":
        assert (roles["original0"], roles["original1"]) == ("norm", "weight")


def test_the_older_weight_norm() -> None:
    def make():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 6)), nn.Linear(6, 2))
        return model, torch.randn(5, 4)

    record = assert_harmless(train(make))[0]
    assert list_keys(record) == ["0", "1"]
    roles = {param.fqn: param.role for param in record.layer_set.params}
    assert (roles["0.weight_g"], roles["0.weight_v"]) == ("norm", "weight")


def test_lazy_modules() -> None:
    def build():
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.LazyLinear(2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, optimizer, make_loop(model, optimizer, torch.randn(5, 4))

    records = assert_harmless(build)
    assert [len(record.layer_set.params) for record in records][-1] == 4
    assert list_keys(records[-1]) == ["0", "1", "2"]
    assert read_param(records[-1], "grad_l2_norm", "0.weight") > 0


def test_modules_that_come_and_go() -> None:
    """A new layer set begins when the set of modules changes."""

    def build():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = torch.randn(5, 4)

        def loop() -> list[float]:
            losses = make_loop(model, optimizer, x, steps=2)()
            model.append(nn.Linear(4, 2))
            optimizer.add_param_group({"params": list(model[3].parameters())})
            losses += make_loop(model, optimizer, x, steps=2)()
            del model[3]
            return losses + make_loop(model, optimizer, x, steps=2)()

        return model, optimizer, loop

    records = assert_harmless(build)
    counts = [len(record.layer_set.layers) for record in records]
    assert counts[:2] == [3, 3]
    assert counts[3] == 4
    assert counts[5] == 3
    assert (
        len({record.layer_set.digest for record in records}) <= 4
    )  # one is of the step in which it changed


def test_frozen_layers() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    record = watch_run(model, optimizer, make_loop(model, optimizer, torch.randn(3, 4)))[0]
    assert "2" in list_keys(record)
    assert math.isnan(read_param(record, "grad_l2_norm", "0.weight"))


def test_empty_batches_and_empty_parameters() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.empty = nn.Linear(4, 2), nn.Parameter(torch.zeros(0))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.body(x)) + self.empty.sum()

    def make():
        return Net(), torch.randn(0, 4)

    records = assert_harmless(train(make, loss_fn=lambda y: y.sum()))
    assert len(records) == 3


def test_scalar_and_unusual_shapes() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.body = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.scale * self.body(x).sum())

    def make():
        return Net(), torch.randn(1)

    record = assert_harmless(train(make, loss_fn=lambda y: y))[0]
    roles = {param.fqn: param.role for param in record.layer_set.params}
    assert roles["scale"] == "scalar"


def test_convolutions_channels_last() -> None:
    def make():
        model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
        x = torch.randn(4, 3, 16, 16).to(memory_format=torch.channels_last)
        return model.to(memory_format=torch.channels_last), x

    record = assert_harmless(train(make))[0]
    torch.manual_seed(1)
    model, x = make()
    h = model[0](x)
    h.retain_grad()
    model[2](torch.relu(h)).square().mean().backward()
    expected = h.grad.double().norm().item()
    assert read(record, "grad_output_l2_norm", "0") == pytest.approx(expected, rel=1e-6)


def test_a_module_outside_the_model_is_not_ours() -> None:
    model, other = nn.Linear(4, 4), nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        for _ in range(2):
            other(torch.relu(model(torch.randn(2, 4)))).sum().backward()
            optimizer.step()

    record = watch_run(model, optimizer, loop)[0]
    assert list_keys(record) == ["", "(outside):relu"]  # the activation is; the module is not


def test_parameters_that_wrap_tensors_are_left_out_and_named() -> None:
    two_tensor = pytest.importorskip("torch.testing._internal.two_tensor").TwoTensor
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    plain = model[0].weight.detach()
    model[0].weight = nn.Parameter(two_tensor(plain.clone(), plain.clone()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loop() -> None:
        for _ in range(3):
            model(torch.randn(5, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    record = watch_run(model, optimizer, loop)[-1]
    assert np.isnan(record.param("grad_l2_norm")[0])
    assert np.isnan(record.param("weight_l2_norm")[0])
    assert any("1 parameters are of the class TwoTensor" in note for note in record.layer_set.notes)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_leave_the_parameters_to_be_seen(layout: torch.layout) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    parts = [torch.randn(3, 4), torch.randn(5, 4)]

    def loop() -> None:
        for _ in range(3):
            out = model(torch.nested.nested_tensor(parts, layout=layout))
            torch.cat([part.flatten() for part in out.unbind()]).pow(2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    record = watch_run(model, optimizer, loop)[0]
    reference = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    torch.manual_seed(0)
    for module in reference:
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    reference(torch.cat(parts)).pow(2).sum().backward()
    norms = [param.grad.norm().item() for param in reference.parameters()]
    np.testing.assert_allclose(record.param("grad_l2_norm"), norms, rtol=1e-5)


def test_a_model_on_meta_is_seen_from_when_it_has_numbers() -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

    def loop(session: Session) -> None:
        model.to_empty(device="cpu")
        for module in (model[0], model[2]):
            module.reset_parameters()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            model(torch.randn(5, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            session.after_step(0, None)

    record = watch_run(model, None, loop, manual=True)[-1]
    for name in ("grad_l2_norm", "weight_l2_norm", "update_l2_norm"):
        assert np.isfinite(record.param(name)).all()


@pytest.mark.parametrize("compiler", ["script", "trace"])
def test_torchscript_shows_its_parameters(compiler: str) -> None:
    """What runs inside it calls no module: layers are not seen, and nothing else is lost."""
    x = torch.randn(7, 4)

    def make() -> tuple[nn.Module, Tensor]:
        plain = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
        return torch.jit.script(plain) if compiler == "script" else torch.jit.trace(plain, x), x

    records = assert_harmless(train(make))
    assert np.isfinite(records[-1].param("update_l2_norm")).all()
