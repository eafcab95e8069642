import pytest

from run_sweep import main
from tests.sweeps.small import written


@pytest.fixture
def sweep(tmp_path, capfd):
    """sweep(*arguments, key=value, ..) -> (exit status, lines of output, lines of errors) of the small sweep."""

    def call(*arguments: str, **keys):
        capfd.readouterr()
        status = main([str(written(tmp_path, **keys)), *arguments])
        printed = capfd.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    return call


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The output directory of the small sweep, run without an interruption. Tests read it only."""
    directory = tmp_path_factory.mktemp("reference")
    assert main([str(written(directory)), "--workers", "2"]) == 0
    return directory / "out"
