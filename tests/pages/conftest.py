"""Logs of an unhealthy, a healthy and a hostile run, served by the real TensorBoard."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gradwatch.log.writer import EventLog
from gradwatch.verdict.trials import Measurement, Trial
from tests.pages.synthetic import HOSTILE, make_layer_set, make_records

SERVE = """
import sys
from tensorboard import default, program
from gradwatch.tensorboard_plugin.loader import GradWatchLoader
server = program.TensorBoard(plugins=[*default.get_static_plugins(), GradWatchLoader()])
server.configure(argv=[None, *sys.argv[1:]])
server.main()
"""


FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # milliseconds


def write_run(logdir: Path, name: str, n_layers: int = 12, n_steps: int = 60, **how: Any) -> None:
    """An event file with synthetic records."""
    naming = {"name": how.pop("naming")} if "naming" in how else {}
    layers = make_layer_set(n_layers, how.pop("activation", "Sigmoid"), **naming)
    log = EventLog(logdir / name)
    for record in make_records(layers, list(range(n_steps)), **how):
        log.write_record(record)
    log.close()


def write_trials(logdir: Path, name: str) -> None:
    """Beside a run's records: one remedy that helps, and the model as it is."""
    before = Measurement(1e-9, 2e-12, 2.3, 2.3)
    after = Measurement(0.4, 1.4e-3, 2.3, 1.6)
    better = Trial("GELU + He", "activation", "replace `<b>*` by GELU", 40, before, after)
    untouched = Trial("as it is", "none", "", 40, before, before)
    log = EventLog(logdir / name)
    log.write_trials(
        0, [replace(better, outcome="healthy"), replace(untouched, outcome="no better")]
    )
    log.close()


@pytest.fixture(scope="session")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs ``sigmoid``, ``healthy``, ``hostile``, and one of someone else's."""
    root = tmp_path_factory.mktemp("logs")
    write_run(root, "sigmoid", histogram_every=20)
    write_trials(root, "sigmoid")
    write_run(root, "healthy", activation="ReLU", gain=1.02)
    write_run(root, "hostile", 5, gain=0.02, naming=lambda index: f"{HOSTILE}{index}")
    other = EventLog(root / "foreign")
    other.write_scalars(1, {"loss": 0.5})
    other.close()
    return root


@dataclass(frozen=True)
class Server:
    """A TensorBoard process of our own."""

    port: int
    logdir: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/prefix"

    def ask(self, path: str) -> tuple[int, bytes]:
        """Status and body of an answer."""
        try:
            with urllib.request.urlopen(f"{self.address}/{path}", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read()

    def get(self, path: str) -> bytes:
        """The body of an answer that must be a success."""
        status, body = self.ask(path)
        assert status == 200, (path, status, body)
        return body


def start_server(logdir: Path, *options: str) -> Iterator[Server]:
    """TensorBoard on a free port, until the generator is closed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", SERVE, "--logdir", str(logdir), "--port", str(port)]
    command += ["--path_prefix", "/prefix", "--reload_interval", "1", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        server = Server(port, logdir)
        _await_answer(server, process)
        yield server
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _await_answer(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(f"TensorBoard ended: {process.stderr.read().decode()[-2000:]}")
        try:
            server.get("data/plugins_listing")
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail("TensorBoard did not answer within 90 s")


@pytest.fixture(scope="session", params=["true", "false"], ids=["fast", "slow"])
def server(request: pytest.FixtureRequest, logdir: Path) -> Iterator[Server]:
    """TensorBoard with each of its two loaders."""
    yield from start_server(logdir, f"--load_fast={request.param}")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a browser; without one the test is skipped, or fails where CI requires it."""
    path = os.environ.get("GRADWATCH_CHROMIUM", "/usr/bin/chromium")
    reason = "" if Path(path).exists() else f"no Chromium at {path}: apt-get install chromium"
    try:
        import playwright.sync_api  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        reason = f"no {error.name}: pip install playwright plotly"
    if reason and os.environ.get("GRADWATCH_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def context(chromium: str) -> Iterator[Any]:
    """One browser context for all tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 1400})
        context.set_default_timeout(PATIENCE)
        yield context
        browser.close()


@pytest.fixture
def page(context: Any) -> Iterator[Any]:
    """A page that fails the test when a script of it fails."""
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors
