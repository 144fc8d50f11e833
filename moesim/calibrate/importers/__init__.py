"""What other tools print, turned into the measurement tables that a fit reads."""
