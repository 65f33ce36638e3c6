"""The event files of a run: written, read, and joined over restarts; no torch."""
