"""Data-parallel ranks: one record for the job, the same on every rank.

Each rank leaves its record of a sampled step with the store. Rank 0 merges what has come, as a
rule at the next sampled step, and leaves the result for the others. A rank that sends nothing in
time is named in the record's notes, and the training goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from torch import nn

from gradwatch.capture.exchange import Exchange, count_ranks, is_job
from gradwatch.capture.rank_codec import Codec
from gradwatch.capture.rank_messages import LayerSets
from gradwatch.capture.rank_spread import Wrappers, fill_spreads
from gradwatch.capture.wrappers import unwrap
from gradwatch.records import LayerSet, StepRecord

PATIENCE_SAMPLES = 3
"""Rank 0 merges without a rank that is more sampled steps behind, ..."""

PATIENCE_FOR_FIRST_SAMPLES = 8
"""... and the others do without rank 0, which decides after it has been patient itself."""

MOST_MERGED = 256
"""Ranks whose records are merged; of more an even choice, for rank 0 takes some 0.3 ms for each
further rank of a network of 500 layers."""

_channels: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)
"""Ranks that watch the same models in the same order find each other by number."""


def choose_ranks(world: int) -> range:
    """Ranks whose records are merged, rank 0 first; all up to ``MOST_MERGED``.

    Args:
        world: number of ranks.

    Example:
        >>> choose_ranks(4), len(choose_ranks(10_000))
        (range(0, 4), 250)
    """
    return range(0, world, -(-world // MOST_MERGED))


@dataclasses.dataclass
class Waiting:
    """A record of this rank that is not merged yet.

    Attributes:
        global_step: of the record.
        record: ``None``: the optimizer skipped the step.
        parts: for each parameter, among how many ranks it is divided.
        age: sampled steps since.
    """

    global_step: int
    record: StepRecord | None
    parts: Sequence[int]
    age: int = 0


class RankMerger:
    """Merges the records of all ranks, none of which ever waits for another.

    Attributes:
        is_wanted: the model belongs to a job whose ranks work together.
        wrappers: through which they do.
        missed: by rank, the records that were merged without it.
    """

    def __init__(self) -> None:
        self.is_wanted = False
        self.wrappers = Wrappers()
        self.missed: Counter[int] = Counter()
        self._exchange: Exchange | None = None
        self._was_tried = False
        self._waiting: deque[Waiting] = deque()
        self._sets = LayerSets()
        self._codec: Codec | None = None
        self._absent: frozenset[int] = frozenset()
        self._published: deque[int] = deque()
        self._paced_at: int | None = None
        self._agreed_wait = 0

    @property
    def is_connected(self) -> bool:
        """Whether records are merged."""
        return self._exchange is not None

    def notice(self, module: nn.Module, model: nn.Module | None) -> None:
        """A module outside the watched ones is called; it may be the model's parallel wrapper.

        Args:
            module: that is called.
            model: that is watched; ``None`` where it is gone.
        """
        inner, is_parallel = unwrap(module)
        if is_parallel and inner is model:
            self.is_wanted = True
            self.wrappers.meet(module)
        elif is_job():
            self.wrappers.meet_other(module, model)

    def describe_alone(self) -> tuple[str, ...]:
        """What to say where nothing shows that the ranks of a job work together."""
        if self.is_wanted or self.wrappers.is_enclosed or not is_job():
            return ()
        return (
            f"this job has {count_ranks()} ranks and the model is in no DistributedDataParallel or "
            "FSDP: each rank is judged by itself, and whether they hold equal weights is not seen",
        )

    def connect(self, fqns: Iterable[str]) -> bool:
        """Find the channel, once; answers whether records are merged.

        Args:
            fqns: of the parameters, by which ranks know that they watch the same model.
        """
        if self._was_tried or not self.is_wanted:
            return self.is_connected
        self._was_tried = True
        if is_job():
            model = hashlib.sha256("\n".join(fqns).encode()).hexdigest()[:16]
            self._exchange = Exchange(f"gradwatch/{model}/{next(_channels[model])}")
        return self.is_connected

    def abandon(self) -> None:
        """Nobody is left who could wait."""
        self._was_tried = True
        if self._exchange is not None:
            self._exchange.stop_waiting()

    # Pace -----------------------------------------------------------------------------------

    def agree_on_wait(self, global_step: int, proposal: int) -> int:
        """What rank 0 proposed at the sampled step before: every rank has got that by now.

        Args:
            global_step: of the sampled step that is over.
            proposal: of this rank, optimizer steps (``sampling_budget.Pace.propose``).

        Returns:
            The proposal where there is nobody to agree with.
        """
        exchange, before = self._exchange, self._paced_at
        self._paced_at = global_step
        if exchange is None or 0 in self._absent:
            return proposal
        if exchange.rank == 0:
            exchange.put(f"wait/{global_step}", str(proposal).encode())
        if before is not None and exchange.wait([f"wait/{before}"]):
            self._agreed_wait = int(exchange.take(f"wait/{before}") or self._agreed_wait)
        return self._agreed_wait

    # Records --------------------------------------------------------------------------------

    def put(self, global_step: int, record: StepRecord | None, parts: Sequence[int]) -> None:
        """Send a record of this rank.

        Args:
            global_step: of the record.
            record: what this rank has seen; ``None`` when its optimizer skipped the step.
            parts: for each parameter, among how many ranks it is divided.
        """
        exchange = self._exchange
        assert exchange is not None
        for waiting in self._waiting:
            waiting.age += 1
        self._waiting.append(Waiting(global_step, record, parts))
        if exchange.rank in choose_ranks(exchange.world)[1:]:
            exchange.put(f"{global_step}/{exchange.rank}", self._sets.encode(record, exchange))

    def collect(self, is_last: bool = False) -> Iterator[StepRecord]:
        """The records of all ranks that are complete, or that nobody waits for any more.

        Args:
            is_last: nothing comes after this: wait for ranks that sent something lately.
        """
        exchange = self._exchange
        if exchange is None:
            return
        find = self._merge if exchange.rank == 0 else self._receive
        while self._waiting:
            found = find(self._waiting[0], is_last, exchange)
            if found is None:
                return
            self._waiting.popleft()
            yield from found
        if is_last:
            self._take_leave(exchange)

    def _take_leave(self, exchange: Exchange) -> None:
        """Rank 0, which may take the store with it, goes last."""
        if exchange.rank != 0:
            exchange.put(f"done/{exchange.rank}", b"1")
        else:
            others = set(range(1, exchange.world)) - self._absent
            exchange.wait([f"done/{rank}" for rank in sorted(others)])

    def _merge(
        self, own: Waiting, is_last: bool, exchange: Exchange
    ) -> tuple[StepRecord, ...] | None:
        """On rank 0."""
        keys = {rank: f"{own.global_step}/{rank}" for rank in choose_ranks(exchange.world)[1:]}
        hoped = [key for rank, key in keys.items() if rank not in self._absent]
        is_complete = exchange.has(*keys.values())
        if not is_complete and own.age < PATIENCE_SAMPLES and not is_last:
            return None
        if not is_complete and is_last:
            exchange.wait(hoped)
        sent = dict(zip(keys, exchange.take_all(list(keys.values())), strict=True))
        records = {
            rank: self._sets.decode(message, own.global_step, exchange)
            for rank, message in sent.items()
            if message is not None
        }
        self._note_absent(rank for rank, message in sent.items() if message is None)
        merged = self._join(own, records, exchange.world)
        self._publish(own.global_step, merged, exchange)
        for rank in records:
            exchange.forget(keys[rank])
        return () if merged is None else (merged,)

    def _join(
        self, own: Waiting, others: dict[int, StepRecord | None], world: int
    ) -> StepRecord | None:
        present = [own.record, *others.values()]
        records = [record for record in present if record is not None]
        if own.record is None or len(records) < len(present):
            return None
        sets = [record.layer_set for record in records]
        layout = self._sets.join(sets, self._describe_absent(world))
        codec = self._find_codec(layout, own.parts)
        vector = np.sum([codec.encode(record) for record in records], axis=0)
        merged = codec.decode(vector, own.record, world, len(records))
        if len(records) > 1 and self.wrappers.keep_equal(world):
            fill_spreads(merged, records, own.parts, self.wrappers.left_out)
        return merged

    def _find_codec(self, layout: LayerSet, parts: Sequence[int]) -> Codec:
        if self._codec is None or not self._codec.suits(layout, parts):
            self._codec = Codec(layout, parts)
        return self._codec

    def _publish(self, global_step: int, merged: StepRecord | None, exchange: Exchange) -> None:
        exchange.put(f"{global_step}/all", self._sets.encode(merged, exchange))
        self._published.append(global_step)
        if len(self._published) > PATIENCE_FOR_FIRST_SAMPLES:
            oldest = self._published.popleft()
            exchange.forget(f"{oldest}/all")
            exchange.forget(f"wait/{oldest}")

    def _receive(
        self, own: Waiting, is_last: bool, exchange: Exchange
    ) -> tuple[StepRecord, ...] | None:
        """On the other ranks."""
        key = f"{own.global_step}/all"
        if is_last and 0 not in self._absent:
            exchange.wait([key])
        sent = exchange.take(key)
        if sent is not None:
            self._note_absent(())
            merged = self._sets.decode(sent, own.global_step, exchange)
            found = merged and dataclasses.replace(
                merged, histograms=own.record.histograms if own.record else {}
            )
            return () if found is None else (found,)
        if exchange.is_open and not is_last and own.age < PATIENCE_FOR_FIRST_SAMPLES:
            return None
        self._note_absent((0,))
        return () if own.record is None else (self._keep_own(own.record, exchange),)

    def _keep_own(self, record: StepRecord, exchange: Exchange) -> StepRecord:
        alone = f"rank 0 sent nothing: these figures are those of rank {exchange.rank} alone"
        return dataclasses.replace(record, layer_set=self._sets.join([record.layer_set], (alone,)))

    def _note_absent(self, ranks: Iterable[int]) -> None:
        self._absent = frozenset(ranks)
        self.missed.update(self._absent)

    def _describe_absent(self, world: int) -> tuple[str, ...]:
        """Counts are rounded down to powers of two, so that the note changes rarely."""
        merged = len(choose_ranks(world))
        chosen = f"figures of layers are of {merged} of {world:,} ranks: an even choice"
        return (chosen,) * (merged < world) + tuple(
            f"rank {rank} of {world} sent nothing at {1 << count.bit_length() - 1} or more sampled "
            "steps: their figures are of the other ranks"
            for rank, count in sorted(self.missed.items())
        )
