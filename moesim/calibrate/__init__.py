"""Measurements: taken here with torch, or read from tables; and the profiles fitted to them."""
