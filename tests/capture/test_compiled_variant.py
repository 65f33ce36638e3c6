"""Statistics inside a compiled graph: the record of an eager step, and the training of none."""

from __future__ import annotations

import copy
import gc
import itertools
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch.utils.checkpoint import checkpoint

import gradwatch
from gradwatch.capture import compiled_taps
from gradwatch.capture.compiled_graph import PROBE
from gradwatch.capture.eager_stance import NOT_INSIDE
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.session import Session
from gradwatch.records import StepRecord
from tests.capture.tools import assert_no_trace
from tests.compilation import (
    COMPARED,
    FOLLOWED,
    FRAMES,
    Backend,
    assert_same_records,
    needs_regions,
)

pytestmark = [pytest.mark.usefixtures("fresh_dynamo"), needs_regions]


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).sigmoid())


class Cnn(nn.Module):
    """A residual sum and rectifiers that write in place, and noise."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.leaky, self.relu = nn.LeakyReLU(inplace=True), nn.ReLU(inplace=True)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.leaky(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(x))
        y += x
        return self.head(self.drop(self.relu(y).mean((2, 3))))


class Block(nn.Module):
    """Attention, a norm written out by hand, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = Rms(), nn.Linear(8, 24), nn.Linear(8, 8)
        self.shared = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        heads = [each.unflatten(-1, (2, 4)).transpose(1, 2) for each in self.split(x)]
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.shared(F.silu(self.shared(x)))

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(self.norm(x)).chunk(3, -1)


class Biased(nn.Module):
    """Heads of queries that share keys, under a mask that learns; a slope that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.queries = nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 8)
        self.keys, self.bias = nn.Linear(8, 8), nn.Parameter(torch.randn(2, 5, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        q, k = (y.unflatten(-1, (2, -1)).transpose(1, 2) for y in (self.queries(x), self.keys(x)))
        k, v = k.chunk(2, 1)
        return F.scaled_dot_product_attention(q, k, v, self.bias, enable_gqa=True).flatten(1)


class Encoder(nn.Module):
    """Torch's own layers, which project inside the attention, and padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.first, self.encoder = nn.Linear(8, 8), nn.TransformerEncoder(layer, 1)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.tensor([5, 3, 4])
        padding = torch.arange(x.shape[1]) >= lengths[:, None]
        return self.encoder(self.first(x), src_key_padding_mask=padding)


class Rms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Embedding(9, 8), Block(), nn.Linear(8, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x)))


class Checkpointed(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(lambda z: self.first(z).sigmoid(), x, use_reentrant=False)
        return self.second(hidden)


class Broken(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        torch._dynamo.graph_break()
        return self.second(hidden.sigmoid())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.unsqueeze(1))[0][:, 0])


class Changing(Mlp):
    """Writes to a part of what a layer has returned."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden[:, 0].mul_(2.0)
        return self.second(hidden.sigmoid())


class Forked(Mlp):
    """Of two outputs one goes nowhere."""

    def forward(self, x: Tensor) -> Any:
        return self.second(self.first(x).sigmoid()), self.first(x)


class Holder(nn.Module):
    """Is never called itself: its training calls the part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Mlp()


class Judging(Mlp):
    """Gives its loss, and what a layer inside has given already."""

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return logits.logsumexp(-1).mean(), logits


MAKERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (Mlp, lambda: torch.randn(5, 6)),
    "cnn": (Cnn, lambda: torch.randn(4, 2, 5, 5)),
    "transformer": (Transformer, lambda: torch.randint(9, (3, 5))[:, :4]),
    "biased": (Biased, lambda: torch.randn(3, 5, 8)),
    "encoder": (Encoder, lambda: torch.randn(3, 5, 8)),
    "checkpoint": (Checkpointed, lambda: torch.randn(5, 6)),
    "graph break": (Broken, lambda: torch.randn(5, 6)),
    "lstm": (Recurrent, lambda: torch.randn(5, 6)),
    "change in place": (Changing, lambda: torch.randn(5, 6)),
    "holder": (Holder, lambda: torch.randn(5, 6)),
    "two outputs": (Forked, lambda: torch.randn(5, 6)),
    "loss and logits": (Judging, lambda: torch.randn(5, 6)),
}


def compile_in(way: str, model: nn.Module, backend: Any) -> Callable[[Tensor], Any]:
    if way == "in_place":
        model.compile(backend=backend, fullgraph=True)
        return model
    if way == "function":
        return torch.compile(lambda x: model(x), backend=backend, fullgraph=True)
    if way == "part":
        part = torch.compile(model.part, backend=backend)
        return lambda x: part(x)
    if way == "numbered":  # as Lightning numbers its batches
        numbers, step = itertools.count(), torch.compile(lambda x, _: model(x), backend=backend)
        return lambda x: step(x, next(numbers))
    return torch.compile(model, backend=backend)


class Run:
    """A training of a compiled model, watched or not."""

    def __init__(
        self, name: str, reads_in_graph: bool | None, way: str = "wrapped", below: Any = aot_eager
    ) -> None:
        torch._dynamo.reset()
        torch.manual_seed(0)
        make, self.draw = MAKERS[name]
        self.backend, self.model = Backend(below), make()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.forward = compile_in(way, self.model, self.backend)
        self.losses: list[float] = []
        self.gradients: list[list[Tensor]] = []
        self.records: list[StepRecord] = []
        self.session: Session | None = None
        if reads_in_graph is not None:
            schedule = Schedule(1, 10, growth=math.inf)
            watched = self.forward if isinstance(self.forward, nn.Module) else self.model
            self.session = Session(
                *(watched, (self.optimizer,), schedule, self.records.append),
                reads_in_graph=reads_in_graph,
            )
            self.session.start()

    def backward(self, x: Tensor) -> None:
        y = self.forward(x)
        y = y[0] if isinstance(y, tuple) else y
        loss = y.logsumexp(-1).mean() if y.dim() else y
        loss.backward()
        self.losses.append(loss.item())

    def step(self, *batches: Tensor) -> None:
        self.optimizer.zero_grad()
        for x in batches:
            self.backward(x)
        self.gradients.append([param.grad.clone() for param in self.model.parameters()])
        self.optimizer.step()

    def train(self, steps: int) -> Run:
        for _ in range(steps):
            self.step(self.draw())
        return self

    def stop(self) -> Run:
        if self.session is not None:
            self.session.stop()
            assert self.session.failure is None
            assert_no_trace(self.model, (self.optimizer,))
        return self


@pytest.mark.parametrize(
    "name",
    ["mlp", "cnn", "transformer", "biased", "encoder", "two outputs", "loss and logits"],
)
def test_a_record_is_that_of_an_eager_step(name: str) -> None:
    bare = Run(name, None).train(FOLLOWED + 3)
    eager, inside = (Run(name, way).train(FOLLOWED + 3).stop() for way in (False, True))
    assert inside.backend.runs == {True: 3 + COMPARED, False: COMPARED}
    assert_same_records(eager.records, inside.records)
    assert inside.losses == bare.losses
    for param, other in zip(inside.model.parameters(), bare.model.parameters(), strict=True):
        assert torch.equal(param, other)


@pytest.mark.parametrize("way", ["in_place", "function", "part", "numbered"])
def test_ways_to_compile(way: str) -> None:
    name = "holder" if way == "part" else "mlp"
    eager, inside = (Run(name, each, way).train(FOLLOWED + 2).stop() for each in (False, True))
    assert inside.backend.runs[True] == 2 + COMPARED
    assert_same_records(eager.records, inside.records)


@pytest.mark.parametrize("name", ["checkpoint", "graph break", "lstm", "change in place"])
def test_what_cannot_be_read_inside_is_followed_as_ever(name: str) -> None:
    """One record is lost at most: of the step at which that turned out."""
    bare = Run(name, None).train(FOLLOWED + 3)
    eager, inside = (Run(name, way).train(FOLLOWED + 3).stop() for way in (False, True))
    assert inside.backend.runs[True] == 0
    assert inside.losses == bare.losses
    steps = [record.global_step for record in inside.records]
    kept = [record for record in eager.records if record.global_step in steps]
    assert len(kept) >= len(eager.records) - 1
    assert steps[-1] == FOLLOWED + 2
    assert inside.records[-1].layer_set.notes[-1].startswith(NOT_INSIDE)
    assert_same_records(kept, list(map(_drop_note, inside.records)))


def _drop_note(record: StepRecord) -> StepRecord:
    notes = tuple(note for note in record.layer_set.notes if not note.startswith(NOT_INSIDE))
    return replace(record, layer_set=replace(record.layer_set, notes=notes))


def test_what_torch_does_not_compile_is_followed_as_ever() -> None:
    """Its own containers, compiled in place, are passed over without a word."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.compile(backend="aot_eager")
    with gradwatch.watch(model, optimizer, every_n_steps=1, compiled="in_graph") as watch:
        for _ in range(FOLLOWED + 3):
            model(torch.randn(5, 6)).square().mean().backward()
            optimizer.step()
    history = watch.report().history
    assert history is not None
    assert [record.global_step for record in history.records] == [0, 1, 2, 4, 5]
    assert NOT_INSIDE + "torch does not compile it" in history.records[-1].layer_set.notes
    assert not np.isnan(history.records[-1].layer("grad_output_l2_norm")).any()


def test_other_batches_evaluation_and_accumulation() -> None:
    """Each runs eagerly, or inside, as it has to; the training never notices."""

    def train(run: Run) -> Run:
        run.train(FOLLOWED + 1)
        run.model.eval()
        with torch.no_grad():
            run.forward(run.draw())
        run.model.train()
        run.step(run.draw()[:3])
        run.train(1)
        run.step(run.draw(), run.draw())
        return run

    bare, eager, inside = (train(Run("mlp", way)).stop() for way in (None, False, True))
    assert inside.losses == bare.losses
    assert inside.backend.runs[True] == 4 + COMPARED
    assert_same_records(eager.records, inside.records)


def test_a_compiler_that_adds_up_otherwise_is_found_out() -> None:
    """One unit in the last place of an output is enough: the training goes on without."""

    def below(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        compiled = aot_eager(graph, inputs)
        if all(node.name != PROBE for node in graph.graph.nodes):
            return compiled
        return lambda *args: (compiled(*args)[0] * (1 + 2**-23), *compiled(*args)[1:])

    bare = Run("mlp", None).train(FOLLOWED + 2)
    inside = Run("mlp", True, below=below).train(FOLLOWED + 2).stop()
    assert inside.losses == bare.losses
    assert inside.backend.runs == {True: COMPARED, False: COMPARED + 1}
    assert [record.global_step for record in inside.records] == [0, 1, 2, 4]


def test_the_users_own_compilations_are_not_counted_with_ours() -> None:
    with torch._dynamo.config.patch(recompile_limit=1):
        run = Run("mlp", True).train(FOLLOWED + 2).stop()
        run.train(2)
    assert run.backend.runs == {True: 2 + COMPARED, False: 2 + COMPARED}


def test_nothing_outlives_the_watch() -> None:
    stance = torch._dynamo.eval_frame._stance
    settings = copy.deepcopy(torch._functorch.config.force_non_lazy_backward_lowering)
    run = Run("mlp", True).train(FOLLOWED + 2)
    assert run.session is not None
    variant = run.session._arming._variant
    assert variant is not None
    codes, region = list(variant._codes), variant._region
    count = lambda: sum(  # noqa: E731
        entry.code is not None and "Deleted" not in type(entry.guard_manager).__name__
        for code in codes
        for entry in FRAMES._get_cache_entries_for_region(code, region)
    )
    assert count() == 1
    run.stop()
    assert count() == 0
    assert torch._dynamo.eval_frame._stance is stance
    assert torch._functorch.config.force_non_lazy_backward_lowering == settings
    assert not compiled_taps._reached
    model = weakref.ref(run.model)
    del run, variant
    torch._dynamo.reset()
    gc.collect()
    assert model() is None


def test_it_is_asked_for() -> None:
    """Also where another watch is waiting for its model's step."""
    run = Run("mlp", None)
    with (
        gradwatch.watch(Mlp()),
        gradwatch.watch(run.forward, run.optimizer, every_n_steps=1, compiled="in_graph"),
    ):
        run.train(FOLLOWED + 1)
    assert run.backend.runs[True] == 1 + COMPARED


@pytest.mark.slow
def test_inductor() -> None:
    """The real compiler: gradients and losses bit for bit, where an eager step's are near."""
    states = []
    results: dict[Any, Run] = {}
    for way in (None, False, True):
        run = results[way] = Run("mlp", way, below=_inductor)
        for number in range(FOLLOWED + 2):
            if way is None:
                states.append(copy.deepcopy(run.model.state_dict()))
            run.model.load_state_dict(states[number])
            run.train(1)
        run.stop()
    bare, inside = results[None], results[True]
    assert inside.backend.runs[True] == 2 + COMPARED
    for grads, others in zip(bare.gradients[FOLLOWED:], inside.gradients[FOLLOWED:], strict=True):
        assert all(map(torch.equal, grads, others))
    assert bare.losses[FOLLOWED:] == inside.losses[FOLLOWED:]
    assert_same_records(results[False].records, inside.records)


def _inductor(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(graph, inputs)
