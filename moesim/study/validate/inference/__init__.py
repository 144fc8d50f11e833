"""Cases of inference files: what served, what was asked, and what to compare."""
