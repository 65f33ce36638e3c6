"""The fixture and options of the pytest plugin, seen from a test suite that uses them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch._dynamo  # noqa: F401  # torch cannot be loaded again by each suite in this process

import gradwatch.display.html
import gradwatch.display.terminal
import gradwatch.model_check  # noqa: F401

SUITE = """
import pytest, torch
import gradwatch as library
from torch import nn

def build(activation, depth):
    torch.manual_seed(0)
    layers = []
    for _ in range(depth - 1):
        linear = nn.Linear(16, 16)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(16, 4))

torch.manual_seed(0)
BATCHES = [(torch.randn(16, 16), torch.randint(4, (16,))) for _ in range(4)]
LOSS = nn.CrossEntropyLoss()

def healthy():
    return build(nn.ReLU, 4)

def unhealthy():
    model = build(nn.Sigmoid, 12)
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return model

def train(model, optimizer, steps=12):
    for step in range(steps):
        x, y = BATCHES[step % 4]
        optimizer.zero_grad()
        LOSS(model(x), y).backward()
        optimizer.step()
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder whose tests can import what they share, in a pytest that repeats no message."""
    for name in ("CI", "BUILD_NUMBER"):  # there the summary holds whole messages again
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(shared=SUITE)
    pytester.syspathinsert()
    return pytester


def run(suite: pytest.Pytester, body: str, *arguments: str) -> pytest.RunResult:
    suite.makepyfile(test_it=f"from shared import *\n\n{body}")
    return suite.runpytest_inprocess("-p", "no:cacheprovider", *arguments)


def test_a_healthy_check_passes(suite: pytest.Pytester) -> None:
    body = """
def test_model(gradwatch):
    report = gradwatch.check(healthy(), BATCHES, LOSS, steps=8)
    assert report.healthy and report.records == 8
"""
    run(suite, body).assert_outcomes(passed=1)


def test_an_unhealthy_check_fails_the_test_with_the_report(suite: pytest.Pytester) -> None:
    body = """
def test_model(gradwatch):
    gradwatch.check(unhealthy(), BATCHES, LOSS)
"""
    result = run(suite, body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*[[]GW101 vanishing, critical]*", "Cause: *", "Remedy: *", "*Captured gradwatch layers*"]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_an_unhealthy_watch_fails_the_test(suite: pytest.Pytester) -> None:
    body = """
def test_model(gradwatch):
    model = unhealthy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gradwatch.watch(model, optimizer):
        train(model, optimizer)
"""
    result = run(suite, body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*[[]GW101 vanishing, critical]*"])


def test_a_watch_left_attached_is_judged_and_detached(suite: pytest.Pytester) -> None:
    body = """
model = unhealthy()
optimizer = torch.optim.SGD(model.parameters(), 0.1)

def test_model(gradwatch):
    gradwatch.watch(model, optimizer)
    train(model, optimizer)

def test_nothing_is_left():
    library.watch(model, optimizer).detach()
"""
    run(suite, body).assert_outcomes(failed=1, passed=1)


def test_every_report_of_a_test_is_shown(suite: pytest.Pytester) -> None:
    body = """
def test_model(gradwatch):
    gradwatch.check(healthy(), BATCHES, LOSS)
    gradwatch.check(unhealthy(), BATCHES, LOSS)
    gradwatch.check(nn.Sequential(nn.Sequential(unhealthy())), BATCHES, LOSS)
"""
    result = run(suite, body)
    result.assert_outcomes(failed=1)
    assert result.stdout.str().count("[GW101 vanishing") == 2


def test_a_fixture_of_a_fixture_counts_too(suite: pytest.Pytester) -> None:
    body = """
@pytest.fixture
def checked(gradwatch):
    return gradwatch.check(unhealthy(), BATCHES, LOSS)

def test_model(checked):
    pass
"""
    run(suite, body).assert_outcomes(failed=1)


def test_a_check_in_a_teardown_counts_too(suite: pytest.Pytester) -> None:
    body = """
@pytest.fixture
def checked_later(gradwatch):
    yield
    gradwatch.check(unhealthy(), BATCHES, LOSS)

def test_model(gradwatch, checked_later):
    gradwatch.check(healthy(), BATCHES, LOSS, steps=8)
"""
    run(suite, body).assert_outcomes(passed=1, errors=1)


def test_a_test_that_is_skipped_after_a_check_stays_one(suite: pytest.Pytester) -> None:
    body = """
@pytest.fixture
def skipping(gradwatch):
    gradwatch.check(unhealthy(), BATCHES, LOSS)
    pytest.skip("later")

def test_model(skipping):
    pass
"""
    run(suite, body).assert_outcomes(skipped=1)


def test_a_unittest_counts_too(suite: pytest.Pytester) -> None:
    body = """
import unittest

class TestModel(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def keep(self, gradwatch):
        self.gradwatch = gradwatch

    def test_model(self):
        self.gradwatch.check(unhealthy(), BATCHES, LOSS)
"""
    run(suite, body).assert_outcomes(failed=1)


def test_the_tests_own_failure_comes_first(suite: pytest.Pytester) -> None:
    body = """
def test_model(gradwatch):
    gradwatch.check(unhealthy(), BATCHES, LOSS)
    assert 1 == 2
"""
    result = run(suite, body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*"])


def test_a_skipped_or_expected_failure_stays_one(suite: pytest.Pytester) -> None:
    body = """
def test_skipped(gradwatch):
    pytest.skip("not today")

@pytest.mark.xfail
def test_expected(gradwatch):
    gradwatch.check(unhealthy(), BATCHES, LOSS)
"""
    run(suite, body).assert_outcomes(skipped=1, xfailed=1)


def test_raise_if_fails_any_test(suite: pytest.Pytester) -> None:
    body = """
def test_model():
    library.check(unhealthy(), BATCHES, LOSS).raise_if("vanishing")
"""
    result = run(suite, body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*UnhealthyGradients: 1 finding:*", "*GW101*"])


# No data -------------------------------------------------------------------------------------


def test_a_watch_that_saw_no_step_fails(suite: pytest.Pytester) -> None:
    body = """
def test_model(gradwatch):
    model = healthy()
    gradwatch.watch(model, torch.optim.SGD(model.parameters(), 0.1))
"""
    result = run(suite, body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*at least one recorded training step*"])


def test_a_fixture_that_judged_nothing_fails(suite: pytest.Pytester) -> None:
    body = """
def test_models(gradwatch):
    for model in []:
        gradwatch.check(model, BATCHES, LOSS)
"""
    result = run(suite, body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*got neither*"])


def test_an_error_of_ours_fails(suite: pytest.Pytester) -> None:
    body = """
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_model(gradwatch, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("ours")
    monkeypatch.setattr("gradwatch.verdict.engine.Doctor.observe", fail)
    model = healthy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gradwatch.watch(model, optimizer):
        train(model, optimizer)
"""
    result = run(suite, body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ZeroDivisionError*ours*"])


# Options -------------------------------------------------------------------------------------

UNHEALTHY = """
def test_model(gradwatch):
    gradwatch.check(unhealthy(), BATCHES, LOSS)
"""


def test_only_chosen_kinds_fail(suite: pytest.Pytester) -> None:
    run(suite, UNHEALTHY, "--gradwatch-fail-on", "dead").assert_outcomes(passed=1)
    both = ("--gradwatch-fail-on", "dead", "--gradwatch-fail-on", "saturated, vanishing")
    run(suite, UNHEALTHY, *both).assert_outcomes(failed=1)


def test_the_ini_chooses_and_the_command_line_overrides(suite: pytest.Pytester) -> None:
    suite.makeini("[pytest]\ngradwatch_fail_on = dead,exploding saturated\n")
    run(suite, UNHEALTHY).assert_outcomes(passed=1)
    run(suite, UNHEALTHY, "--gradwatch-fail-on", "vanishing").assert_outcomes(failed=1)


def test_an_unknown_kind_is_refused_at_once(suite: pytest.Pytester) -> None:
    result = run(suite, UNHEALTHY, "--gradwatch-fail-on", "sad")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*vanishing*'sad'*Did you mean*"])


def test_no_step_is_refused_at_once(suite: pytest.Pytester) -> None:
    result = run(suite, UNHEALTHY, "--gradwatch-steps", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_help_names_the_option_and_the_fixture(suite: pytest.Pytester) -> None:
    suite.runpytest_inprocess("--help").stdout.fnmatch_lines(
        ["*--gradwatch-fail-on*", "*gradwatch_fail_on*"]
    )
    suite.runpytest_inprocess("--fixtures").stdout.fnmatch_lines(
        ["gradwatch_check -- *", "gradwatch -- *"]
    )


# Settings ------------------------------------------------------------------------------------

MARKED = """
@pytest.mark.gradwatch({marker})
def test_model(gradwatch_check):
    report = gradwatch_check(healthy(), BATCHES, LOSS)
    print(f"records={{report.records}} seeds={{report.seeds}}.")
"""


def run_marked(suite: pytest.Pytester, marker: str, *arguments: str) -> pytest.RunResult:
    return run(suite, MARKED.format(marker=marker), "-s", *arguments)


def test_a_marker_chooses(suite: pytest.Pytester) -> None:
    result = run_marked(suite, "steps=6, seeds=2")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*records=6 seeds=2.*"])
    body = UNHEALTHY.replace("def", "@pytest.mark.gradwatch(fail_on=['dead'])\ndef")
    run(suite, body).assert_outcomes(passed=1)
    body = body.replace("fail_on=['dead']", "thresholds={'ignore_kinds': ['vanishing']}")
    run(suite, body).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("step=6", "*Did you mean 'steps'*"),
        ("steps=0", "*whole number from 1, got 0*"),
        ("fail_on='sad'", "*kinds*'sad'*"),
        ("thresholds={'profil': 1.0}", "*Did you mean 'profile'*"),
        ("3", "*keywords only, got 3*"),
    ],
)
def test_a_marker_that_means_nothing_is_an_error(suite, marker: str, words: str) -> None:
    result = run_marked(suite, marker)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([words])


def test_command_line_over_marker_over_ini_over_pyproject(suite: pytest.Pytester) -> None:
    suite.makepyprojecttoml("[tool.gradwatch]\nsteps = 4\nseeds = 2\n")
    run_marked(suite, "").stdout.fnmatch_lines(["*records=4 seeds=2.*"])
    suite.makeini("[pytest]\ngradwatch_steps = 5\ngradwatch_seeds = 1\n")
    run_marked(suite, "").stdout.fnmatch_lines(["*records=5 seeds=1.*"])
    run_marked(suite, "steps=6").stdout.fnmatch_lines(["*records=6 seeds=1.*"])
    chosen = ("--gradwatch-steps", "7", "--gradwatch-seeds", "2")
    run_marked(suite, "steps=6", *chosen).stdout.fnmatch_lines(["*records=7 seeds=2.*"])


def test_thresholds_of_the_ini_file(suite: pytest.Pytester) -> None:
    suite.makeini("[pytest]\ngradwatch_thresholds =\n    ignore_kinds = vanishing\n")
    run(suite, UNHEALTHY).assert_outcomes(passed=1)
    suite.makeini("[pytest]\ngradwatch_thresholds =\n    persistence = many\n")
    assert run(suite, UNHEALTHY).ret == pytest.ExitCode.USAGE_ERROR


def test_pyproject_ignores_with_a_reason(suite: pytest.Pytester) -> None:
    row = '[[tool.gradwatch.ignore]]\nkind = "vanishing"\nlayers = "{}"\nreason = "known"\n'
    suite.makepyprojecttoml(row.format("*"))
    run(suite, UNHEALTHY).assert_outcomes(passed=1)
    suite.makepyprojecttoml(row.format("0"))  # one layer of several: the finding stays
    run(suite, UNHEALTHY).assert_outcomes(failed=1)


def test_an_html_report_for_each_failing_test(suite: pytest.Pytester) -> None:
    body = """
@pytest.mark.parametrize("name", ["a/b", "a:b", "well"])
def test_model(gradwatch_check, name):
    gradwatch_check(healthy() if name == "well" else unhealthy(), BATCHES, LOSS)
"""
    result = run(suite, body, "--gradwatch-report", "pages")
    result.assert_outcomes(failed=2, passed=1)
    pages = sorted((suite.path / "pages").iterdir())
    assert len(pages) == 2
    assert all("<html" in page.read_text(encoding="utf-8") for page in pages)
    result.stdout.fnmatch_lines([f"*Report: *{pages[0].name}"])


def test_both_names_of_the_fixture_are_one(suite: pytest.Pytester) -> None:
    body = """
def test_model(gradwatch, gradwatch_check):
    assert gradwatch is gradwatch_check
    gradwatch.check(healthy(), BATCHES, LOSS)
"""
    run(suite, body).assert_outcomes(passed=1)


RUN_TWICE = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for attempt in range(2):  # as pytest-rerunfailures does
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""


def test_a_test_that_is_run_again_is_judged_by_its_new_reports_alone(
    suite: pytest.Pytester,
) -> None:
    suite.makeconftest(RUN_TWICE)
    body = """
from itertools import count
mended, emptied = count(), count()

def test_mended(gradwatch_check):
    gradwatch_check(healthy() if next(mended) else unhealthy(), BATCHES, LOSS, steps=8)

def test_emptied(gradwatch_check):
    if not next(emptied):
        gradwatch_check(healthy(), BATCHES, LOSS, steps=8)
"""
    result = run(suite, body)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED *test_emptied*"])


def test_junit_holds_the_three_lines_and_the_table_apart(suite: pytest.Pytester) -> None:
    run(suite, UNHEALTHY, "--junitxml=junit.xml", "-o", "junit_logging=all")
    case = ElementTree.parse(suite.path / "junit.xml").find(".//testcase")
    message = case.find("failure").get("message")
    assert len(message.splitlines()) == 3
    assert "Gain" not in message


def run_apart(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """In processes of their own, each of which loads torch."""
    suite.makepyfile(test_it="from shared import *\n" + ONE_OF_TWO)
    return suite.runpytest_subprocess(*arguments)


ONE_OF_TWO = """
def test_well(gradwatch_check):
    gradwatch_check(healthy(), BATCHES, LOSS, steps=4)

def test_model(gradwatch_check):
    gradwatch_check(unhealthy(), BATCHES, LOSS)
"""


@pytest.mark.slow
def test_under_xdist_and_last_failed(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    result = run_apart(suite, "-n", "2", "--gradwatch-report", "pages")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["Remedy: *", "*Captured gradwatch layers*"])
    assert len(list((suite.path / "pages").iterdir())) == 1
    run_apart(suite, "--lf").assert_outcomes(failed=1)


# Start-up ------------------------------------------------------------------------------------


def count_modules(pytester: pytest.Pytester, body: str) -> str:
    """What a suite in a fresh interpreter prints of the modules that are loaded at its end."""
    pytester.makepyfile(test_it=body)
    pytester.makeconftest(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    print('loaded', [m for m in ('torch', 'gradwatch.pytest_plugin') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(pytester.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip().splitlines()[-1]


def test_start_up_loads_no_torch(pytester: pytest.Pytester) -> None:
    seen = count_modules(pytester, "def test_plain():\n    pass")
    assert seen == "loaded ['gradwatch.pytest_plugin']"


def test_the_fixture_loads_torch(pytester: pytest.Pytester) -> None:
    seen = count_modules(
        pytester,
        "def test_model(gradwatch):\n"
        "    from torch import nn, ones\n"
        "    gradwatch.check(nn.Linear(2, 1), [ones(3, 2)], lambda out: out.mean())\n",
    )
    assert seen == "loaded ['torch', 'gradwatch.pytest_plugin']"
