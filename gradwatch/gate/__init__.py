"""The gate of a CI job: which findings of which runs fail it, and why the others do not."""
