"""Compares predictions with what others measured, case by case."""
