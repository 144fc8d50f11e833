"""The command line: each command is a thin shell round the Python API."""
