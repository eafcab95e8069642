"""Runs: their arguments, data, metrics, trainer, tracking, results and the comparison of finished ones."""
