"""What TensorBoard imports when it starts: tiny, for an error here would stop it for everyone."""

from __future__ import annotations

import argparse
import logging

from tensorboard.plugins import base_plugin

SAMPLES = 2000
"""Recorded steps that TensorBoard keeps per run for us; its default keeps 10."""

logger = logging.getLogger("gradwatch")


class GradWatchLoader(base_plugin.TBLoader):  # type: ignore[misc]
    """Loads the plugin, or says in one line why the tab is missing."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Ask for more than TensorBoard's ten samples; a user's own choice stays.

        Args:
            flags: TensorBoard's, changed in place.
        """
        samples = getattr(flags, "samples_per_plugin", None)
        if isinstance(samples, dict):
            samples.setdefault("gradwatch", SAMPLES)

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin | None:
        """The plugin; ``None`` leaves TensorBoard without our tab, and otherwise whole.

        Args:
            context: TensorBoard's, with the data provider.
        """
        try:
            from gradwatch.tensorboard_plugin.plugin import GradWatchPlugin

            return GradWatchPlugin(context)
        except Exception as error:  # whatever is broken here, TensorBoard must start
            logger.warning("The gradwatch tab could not be loaded: %s", error)
            return None
