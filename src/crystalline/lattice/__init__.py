"""Exact mathematics: whole numbers and lattices, without rounding. No files, no network, no torch."""
