"""The tab's server side: a handful of WSGI routes over the runs that the monitor has judged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from gradwatch.display import assets
from gradwatch.display.page_data import write_rules
from gradwatch.log.summaries import PLUGIN_NAME
from gradwatch.tensorboard_plugin.loader import SAMPLES
from gradwatch.tensorboard_plugin.run_monitor import STARTUP_SECONDS, RunMonitor
from gradwatch.tensorboard_plugin.runs import RunReader

LISTING_WAITS_SECONDS = 0.3
MAX_NAME_LENGTH = 1024  # characters of a run's name in a request
ASSET_SECONDS = 3600  # how long a browser may keep plotly.js

Application = Callable[[Any, Any], Iterable[bytes]]

_TYPES = {"js": "text/javascript", "css": "text/css"}


class GradWatchPlugin(base_plugin.TBPlugin):  # type: ignore[misc]
    """GradWatch in TensorBoard."""

    plugin_name = PLUGIN_NAME

    def __init__(self, context: base_plugin.TBContext) -> None:
        """Read through the context's data provider; without one the tab stays inactive."""
        provider = context.data_provider
        kept = getattr(context.flags, "samples_per_plugin", None) or {}
        reader = RunReader(provider, int(kept.get(PLUGIN_NAME, SAMPLES)))
        self._monitor = RunMonitor(reader) if provider is not None else None

    def get_plugin_apps(self) -> Mapping[str, Application]:
        """Routes: our own files, plotly.js, the verdicts of all runs, the figures of one."""
        if self._monitor is not None:
            self._monitor.poke(STARTUP_SECONDS)
        files = {f"/{name}": _serve_file(name) for name in (*assets.MODULES, assets.STYLE)}
        return {
            **files,
            "/plotly.min.js": _serve(_answer_plotly),
            "/runs": _serve(self._answer_runs),
            "/figures": _serve(self._answer_figures),
        }

    def is_active(self) -> bool:
        """False: TensorBoard asks only when no run has data of ours."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The tab's name with the number of runs with findings.

        Cheap: without new data the wait is a few milliseconds. With new data it is given a moment,
        or the number would lag one reload behind.
        """
        unhealthy = 0
        if self._monitor is not None:
            self._monitor.poke()
            self._monitor.wait(LISTING_WAITS_SECONDS)
            unhealthy = self._monitor.count_unhealthy()
        name = f"GradWatch ({unhealthy})" if unhealthy else "GradWatch"
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name=name)

    def _answer_runs(self, request: wrappers.Request) -> wrappers.Response:
        """The runs that changed since the revision that the page knows, and the names of all."""
        known = request.args.get("since", "0")
        since = int(known) if known.isascii() and known.isdigit() and len(known) < 10 else 0
        answer: dict[str, Any] = {"runs": [], "names": [], "revision": 0, "settled": True}
        if self._monitor is not None:
            self._monitor.poke()
            settled = self._monitor.wait(LISTING_WAITS_SECONDS)
            answer = {**self._monitor.list_news(since), "settled": settled}
        answer |= {"plotly": assets.find_plotly() is not None, "now": round(time.time(), 1)}
        if not since:
            answer["rules"] = write_rules()
        text = json.dumps(answer, allow_nan=False, separators=(",", ":"))
        return _respond(request, text, "application/json")

    def _answer_figures(self, request: wrappers.Request) -> wrappers.Response:
        name = request.args.get("run", "")
        if len(request.args) > 2 or not 0 < len(name) <= MAX_NAME_LENGTH:
            return _refuse(request, 400, f"expected one run of 1 to {MAX_NAME_LENGTH} characters")
        if self._monitor is None or not self._monitor.knows(name):
            return _refuse(request, 404, "no such run with gradwatch's data; reload the page")
        content = self._monitor.draw(name)
        return _respond(request, content, "application/json", content_encoding="gzip")


def _serve(answer: Callable[[wrappers.Request], wrappers.Response]) -> Application:
    """A function of a request as a WSGI application."""

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        return answer(wrappers.Request(environ))(environ, start_response)

    return application


def _serve_file(name: str) -> Application:
    """An application that serves one of our own files and nothing else."""
    kind = _TYPES[name.rsplit(".", 1)[1]]
    return _serve(lambda request: _respond(request, assets.read_asset(name), kind))


def _answer_plotly(request: wrappers.Request) -> wrappers.Response:
    content = assets.read_plotly()
    if content is None:
        return _refuse(request, 404, "plotly is not installed: pip install 'gradwatch[plots]'")
    return _respond(
        request, content, "text/javascript", expires=ASSET_SECONDS, content_encoding="gzip"
    )


def _refuse(request: wrappers.Request, code: int, reason: str) -> wrappers.Response:
    return _respond(request, json.dumps({"error": reason}), "application/json", code=code)


def _respond(
    request: wrappers.Request, content: str | bytes, kind: str, **options: Any
) -> wrappers.Response:
    response: wrappers.Response = http_util.Respond(request, content, kind, **options)
    return response
