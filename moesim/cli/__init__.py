"""The command line: each command a thin shell round the Python API."""
