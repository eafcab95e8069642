"""Training runs: arguments, data, metrics, trainer, tracking, results, and the comparison of finished runs."""
