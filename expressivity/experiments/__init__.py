"""What a configuration file can ask for, by the name under its key `experiment`."""

from expressivity.experiments.comparison import ComparisonExperiment
from expressivity.experiments.trajectory_depth import TrajectoryExperiment

EXPERIMENTS = {"comparison": ComparisonExperiment, "trajectory_depth": TrajectoryExperiment}

__all__ = ["EXPERIMENTS", "ComparisonExperiment", "TrajectoryExperiment"]
