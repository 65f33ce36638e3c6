"""Hooks that turn a training step into a record: moments on the device, one transfer."""
