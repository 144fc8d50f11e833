"""Why a case cannot be compared."""


class SkippedError(Exception):
    """A case cannot be mapped or simulated; the text says why."""
