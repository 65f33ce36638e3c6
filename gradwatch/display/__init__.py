"""Showing records and findings: TensorBoard event files, terminal, Markdown, HTML; no torch."""
