"""From what detectors said to how right they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.sighting import Sighting
from benchmarks.trial import Outcome
from gradwatch.schema.kinds import KINDS
from tests.zoo import Case

MISSED = "missed"
ALARM = "alarm"
PASSING_ALARM = "passing alarm"
CAUSE = "cause"
PLACE = "place"
EXTRA = "extra"
CRASH = "crash"


@dataclass(frozen=True)
class KindScore:
    """One kind of disease.

    Attributes:
        cases: unhealthy runs that are labelled with it.
        found: those in which it was reported.
        reported: runs in which it was reported at all.
        right: those whose label has or allows it.
    """

    cases: int
    found: int
    reported: int
    right: int

    @property
    def recall(self) -> float | None:
        return self.found / self.cases if self.cases else None

    @property
    def precision(self) -> float | None:
        return self.right / self.reported if self.reported else None


@dataclass(frozen=True)
class Score:
    """One detector over the zoo. Tuples hold names of cases.

    Attributes:
        unhealthy, healthy: how many such runs there were.
        found: unhealthy runs in which a kind of the label was reported.
        noticed: unhealthy runs in which anything was reported.
        misses: unhealthy runs in which no kind of the label was reported.
        alarms: healthy runs in which anything was reported at the end.
        passing_alarms: other healthy runs in which something was reported on the way.
        causes_asked: unhealthy runs whose label has a cause.
        wrong_causes: those of them where it was not named.
        wrong_places: unhealthy runs where none of the first three layers named is in the region.
        crashes: runs that ended with an error.
        steps: median steps until detection of what was unhealthy from the start.
        late_steps: median steps from becoming unhealthy until detection of the others.
        kinds: scores by kind.
    """

    unhealthy: int
    healthy: int
    found: int
    noticed: int
    misses: tuple[str, ...]
    alarms: tuple[str, ...]
    passing_alarms: tuple[str, ...]
    causes_asked: int
    wrong_causes: tuple[str, ...]
    wrong_places: tuple[str, ...]
    crashes: tuple[str, ...]
    steps: float | None
    late_steps: float | None
    kinds: Mapping[str, KindScore]


def judge_outcome(case: Case, outcome: Outcome) -> dict[str, str]:
    """What is wrong with an outcome: problem -> the numbers; empty when all is right."""
    if outcome.error:
        return {CRASH: outcome.error}
    if case.healthy:
        return _judge_healthy(outcome)
    main = _find_main(case, outcome)
    if main is None:
        kinds = ", ".join(sighting.kind for sighting in outcome.sightings)
        return {MISSED: f"expected {case.kinds[0]}, got {kinds or 'nothing'}"}
    problems = {}
    if case.cause is not None and main.cause != case.cause:
        problems[CAUSE] = f"expected {case.cause}, got {main.cause}"
    if not is_placed(case, main):
        problems[PLACE] = f"expected {' '.join(case.region)}, got {' '.join(main.layers)}"
    extra = [kind for kind in _find_kinds(outcome) if not _is_right(case, kind)]
    if extra:
        problems[EXTRA] = f"also reports {', '.join(extra)}"
    return problems


def _judge_healthy(outcome: Outcome) -> dict[str, str]:
    lasting = [sighting for sighting in outcome.sightings if sighting.lasting]
    problem = ALARM if lasting else PASSING_ALARM
    shown = [f"{s.kind} ({s.cause}) at {' '.join(s.layers)}" for s in outcome.sightings]
    return {problem: "; ".join(shown)} if shown else {}


def is_placed(case: Case, sighting: Sighting) -> bool:
    """Whether one of the layers that are named first is inside the unhealthy region."""
    return any(case.holds(layer.partition("#")[0]) for layer in sighting.layers)


def measure_delay(case: Case, outcome: Outcome) -> int | None:
    """Optimizer steps from becoming unhealthy until a kind of the label was reported."""
    kinds = {*case.kinds, *case.also_allowed}
    steps = [sighting.step for sighting in outcome.sightings if sighting.kind in kinds]
    found = _find_main(case, outcome) is not None
    return None if not found else max(0, min(steps) - case.unhealthy_from_step)


def _find_main(case: Case, outcome: Outcome) -> Sighting | None:
    """The sighting that speaks of the label, its main kind before others, lasting ones first."""
    for kind in case.kinds:
        for sighting in sorted(outcome.sightings, key=lambda sighting: not sighting.lasting):
            if sighting.kind == kind:
                return sighting
    return None


def _find_kinds(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys(sighting.kind for sighting in outcome.sightings))


def _is_right(case: Case, kind: str) -> bool:
    return kind in case.kinds or kind in case.also_allowed


def score_detector(cases: Sequence[Case], outcomes: Mapping[str, Outcome]) -> Score:
    """How one detector did; ``outcomes`` by name of the case."""
    unhealthy = [case for case in cases if not case.healthy]
    problems = {case.name: judge_outcome(case, outcomes[case.name]) for case in cases}
    found = [case for case in unhealthy if _find_main(case, outcomes[case.name]) is not None]
    lost = tuple(case.name for case in unhealthy if case not in found)
    with_cause = [case.name for case in unhealthy if case.cause is not None]
    delays = [(case, measure_delay(case, outcomes[case.name])) for case in found]
    early = [delay for case, delay in delays if delay is not None and not case.unhealthy_from_step]
    late = [delay for case, delay in delays if delay is not None and case.unhealthy_from_step]

    def having(problem: str, names: Sequence[str] = tuple(problems)) -> tuple[str, ...]:
        return tuple(name for name in names if problem in problems[name])

    return Score(
        unhealthy=len(unhealthy),
        healthy=len(cases) - len(unhealthy),
        found=len(found),
        noticed=sum(bool(outcomes[case.name].sightings) for case in unhealthy),
        misses=lost,
        alarms=having(ALARM),
        passing_alarms=having(PASSING_ALARM),
        causes_asked=len(with_cause),
        wrong_causes=tuple(name for name in with_cause if name in lost) + having(CAUSE),
        wrong_places=lost + having(PLACE),
        crashes=having(CRASH),
        steps=median(early) if early else None,
        late_steps=median(late) if late else None,
        kinds={kind: _score_kind(kind, cases, outcomes) for kind in KINDS},
    )


def _score_kind(kind: str, cases: Sequence[Case], outcomes: Mapping[str, Outcome]) -> KindScore:
    labelled = [case for case in cases if kind in case.kinds]
    reported = [case for case in cases if kind in _find_kinds(outcomes[case.name])]
    found = [case for case in labelled if case in reported]
    right = [case for case in reported if _is_right(case, kind)]
    return KindScore(len(labelled), len(found), len(reported), len(right))
