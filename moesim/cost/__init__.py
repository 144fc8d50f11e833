"""Counts over capabilities: seconds, and bytes that fit or do not."""
