"""Programs that must never be green, and their honest twins, by family."""
