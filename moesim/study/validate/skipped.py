"""Why a case cannot be compared."""


class Skipped(Exception):
    """A case that cannot be mapped or simulated; its text says why."""
