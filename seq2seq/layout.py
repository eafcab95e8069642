"""The names of the files in a run's directory, and the keys that do not distinguish runs. Imports nothing."""

CONFIGURATION = "resolved_config.json"
RESULTS = "results.json"
DIVERGED = "diverged.json"  # instead of the results, if training ended with a number that is not finite
DRY_RUN = "dry_run.json"
SERIES = "series.json"
MERGED = "merged"  # directory of the exported model
PREDICTIONS = "predictions"  # directory of the predicted texts
CELLS = "cells"  # directory of a sweep's runs
# Keys that may differ between an unfinished run and the one that resumes it.
INCIDENTAL = (
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "output_dir",
    "log_to_wandb",
    "project_name",
    "disable_tqdm",
    "dry_run",
    "print_num_parameters",
)
