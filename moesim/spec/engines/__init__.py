"""Command lines of inference engines, read as serving scenarios."""
