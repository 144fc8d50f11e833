"""Reports of serving runs: terminal, page, tables, files that other tools read."""
