import pytest

import report
from tests.report.written_runs import write_run


@pytest.fixture
def make_report(tmp_path, capfd):
    """make_report(argument ..) -> (exit status, lines on standard error, output directory)."""

    def call(*arguments, out="report"):
        capfd.readouterr()
        status = report.main([*map(str, arguments), "--output_dir", str(tmp_path / out)])
        return status, capfd.readouterr().err.splitlines(), tmp_path / out

    return call


@pytest.fixture
def two_tasks(tmp_path):
    """The directory of runs on two tasks: three seeds of one configuration and one of another."""
    for seed, movie in ((1, 70.0), (2, 72.0), (3, 77.0)):
        write_run(tmp_path / f"runs/lora-{seed}", scores={"movie": movie, "amazon": 60.0}, seed=seed)
    write_run(tmp_path / "runs/deep/bitfit", "bitfit", scores={"movie": 71.0, "amazon": 64.0}, trainable=10)
    return tmp_path / "runs"
