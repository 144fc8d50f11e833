"""A training step: schedules as data, one interpreter, streams."""
