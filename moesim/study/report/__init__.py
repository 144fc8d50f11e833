"""What a person reads: terminal text, files, and one HTML page."""
