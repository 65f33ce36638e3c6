"""What compiled code reads of a tensor, against float64 and against gradwatch's own Python."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradwatch.capture import native, statistics
from gradwatch.capture.device_values import Ledger
from gradwatch.capture.native import GRAD_OUTPUT, NativeTable

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(1,), (3,), (64,), (4096,), (4097,), (8192,), (8193,), (130, 70), (2, 3, 300, 301)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.fixture
def table(installed: Any) -> NativeTable:
    return make_table()


def make_table() -> NativeTable:
    found = native.make_table(lambda: True, fail, set())
    assert found is not None
    return found


def fail(error: BaseException) -> None:
    raise error


def read(table: NativeTable, tensor: Tensor) -> tuple[float, float] | None:
    """Norm and share of zeros, as the host makes them; ``None``: refused."""
    if not table.read(GRAD_OUTPUT, 3, 2, tensor, True):
        return None
    ledger = Ledger()
    table.flush(ledger)
    assert (ledger.indices, ledger.roots) == ([3, 3], [2, 2])
    assert ledger.statistics == ["grad_output_l2_norm", "grad_zero_fraction"]
    squares, nonzero = ledger.send().read()
    return math.sqrt(squares), 1 - nonzero / ledger.divisors[1]


def make_sparse_values(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    torch.manual_seed(0)
    values = torch.randn(shape, dtype=torch.float64)
    return (values * (torch.rand(shape) > 0.3)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_and_zeros_are_those_of_float64_and_of_python(
    table: NativeTable, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    tensor = make_sparse_values(shape, dtype)
    found = read(table, tensor)
    assert found is not None
    assert found[0] == pytest.approx(tensor.double().norm().item(), rel=2e-7)
    zeros = statistics.measure_zero_fraction(tensor)
    assert found[1] == pytest.approx(1 - zeros.value.item() / zeros.divisor, abs=1e-12)


def test_a_sum_of_many_squares_keeps_its_digits(table: NativeTable) -> None:
    tensor = torch.full((3_000_017,), 0.1)
    found = read(table, tensor)
    assert found is not None
    assert found[0] == pytest.approx(tensor.double().norm().item(), rel=2e-7)


LAYOUTS = {
    "transposed": lambda: torch.randn(70, 130).t(),
    "channels last": lambda: torch.randn(4, 8, 20, 30).to(memory_format=torch.channels_last),
    "offset": lambda: torch.randn(200, 100)[17:180],
    "one element wide": lambda: torch.randn(100, 1, 3).transpose(0, 1),
    "parameter": lambda: nn.Parameter(torch.randn(30, 5)),
    "negated lazily": lambda: torch.randn(40, dtype=torch.complex64).conj().imag.contiguous(),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_whatever_lies_without_gaps_is_read(table: NativeTable, name: str) -> None:
    tensor = LAYOUTS[name]()
    found = read(table, tensor)
    assert found is not None
    assert found[0] == pytest.approx(tensor.detach().double().norm().item(), rel=2e-7)


REFUSED = {
    "gaps": lambda: torch.randn(40, 40)[:, ::2],
    "expanded": lambda: torch.randn(1, 4).expand(3, 4),
    "overlapping": lambda: torch.randn(9).unfold(0, 3, 1),
    "float16": lambda: torch.randn(4).half(),
    "complex": lambda: torch.randn(4, dtype=torch.complex64),
    "integers": lambda: torch.arange(4),
    "empty": lambda: torch.zeros(0, 3),
    "meta": lambda: torch.zeros(3, device="meta"),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "subclass": lambda: torch.zeros(3).as_subclass(type("Own", (Tensor,), {})),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused(table: NativeTable, name: str) -> None:
    assert read(table, REFUSED[name]()) is None


def test_what_a_transform_wraps_is_refused(table: NativeTable) -> None:
    answers = []

    def see(x: Tensor) -> Tensor:
        answers.append(read(table, x))
        return x.sum()

    torch.vmap(see)(torch.randn(2, 3))
    torch.func.grad(see)(torch.randn(3))
    assert answers == [None, None]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_broken_stays_broken(table: NativeTable, broken: float) -> None:
    tensor = torch.ones(5000)
    tensor[4321] = broken
    found = read(table, tensor)
    assert found is not None
    assert not math.isfinite(found[0])


def test_squares_overflow_as_those_of_python_do(table: NativeTable) -> None:
    tensor = torch.full((5000,), 1e18)
    found, python = read(table, tensor), statistics.measure_l2_norm(tensor)
    assert found is not None
    assert found[0] == pytest.approx(math.sqrt(python.value.item()), rel=1e-6)
    assert read(table, torch.full((5000,), 1e19)) == (math.inf, 0.0)
    single = read(table, torch.tensor([1e30]))
    assert single is not None
    assert single[0] == pytest.approx(1e30, rel=1e-6)


@pytest.mark.parametrize("exponent", [-18, -19, -20, -21, -22, -23, -24, -30, -40])
def test_the_smallest_numbers_vanish_as_those_of_python_do(
    table: NativeTable, exponent: int
) -> None:
    torch.manual_seed(0)
    tensor = torch.randn(5000) * 10.0**exponent
    found, python = read(table, tensor), statistics.measure_l2_norm(tensor)
    assert found is not None
    assert found[0] == pytest.approx(math.sqrt(python.value.item()), rel=1e-6, abs=0)


def test_a_large_tensor_that_was_changed_is_read_again(table: NativeTable) -> None:
    tensor = torch.ones(10_000)
    norms = []
    for factor in (1, 3, 1):
        tensor.mul_(factor)
        norms.append(read(table, tensor))
    shares = [norm[0] for norm in norms if norm is not None]
    assert shares == pytest.approx([100, 300, 300])


def test_memory_that_is_used_again_is_read_again(table: NativeTable) -> None:
    buffer = np.ones(10_000, dtype=np.float32)
    first = read(table, torch.from_numpy(buffer))
    buffer *= 2  # no version tells of it, but the tensor is another one
    second = read(table, torch.from_numpy(buffer))
    assert first is not None
    assert second is not None
    assert second[0] == pytest.approx(2 * first[0])


def test_nothing_is_kept_alive(table: NativeTable) -> None:
    tensor = torch.ones(10_000)
    seen = weakref.ref(tensor)
    assert read(table, tensor) is not None
    del tensor
    assert seen() is None


def test_a_table_goes_with_its_last_reference(installed: Any) -> None:
    class Asked:
        def __call__(self) -> bool:
            return True

    asked = Asked()
    table = native.make_table(asked, fail, set())
    assert table is not None
    seen = weakref.ref(asked)
    gc.disable()
    try:
        del table, asked
        assert seen() is None
    finally:
        gc.enable()


def test_all_sums_at_once(installed: Any) -> None:
    tensors = [torch.randn(7), torch.randn(300, 300).t(), torch.randn(2).double()]
    found = native.measure_sums(tensors)
    assert found is not None
    expected = [tensor.double().square().sum().item() for tensor in tensors]
    assert found.tolist() == pytest.approx(expected, rel=4e-7)
    assert native.measure_sums([torch.zeros(2), torch.zeros(2).half()]) is None
