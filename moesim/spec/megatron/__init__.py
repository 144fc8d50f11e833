"""Megatron-LM's command line, read as a scenario."""
