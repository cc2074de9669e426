"""Figures of an evaluation: each function takes arrays and returns a matplotlib figure."""
