"""Experiments, by the name that a configuration file gives under its key `experiment`."""

from expressivity.experiments.comparison import ComparisonExperiment
from expressivity.experiments.trajectory_depth import TrajectoryExperiment

EXPERIMENTS = {"comparison": ComparisonExperiment, "trajectory_depth": TrajectoryExperiment}

__all__ = ["EXPERIMENTS", "ComparisonExperiment", "TrajectoryExperiment"]
