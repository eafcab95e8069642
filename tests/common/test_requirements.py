"""Without the packages of the laboratory every entry point says in one line how to get them."""

import subprocess
import sys

import pytest

from common.requirements import LAB, check_installed
from tests.conftest import ROOT


def test_they_are_installed_here():
    check_installed()


@pytest.mark.parametrize("program", ["run_seq2seq", "run_expressivity", "report"])
def test_missing_packages_are_one_line(program):
    code = f"import sys; sys.modules.update(dict.fromkeys({LAB})); import {program}; sys.exit({program}.main(['x']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    message = f'error: {", ".join(LAB)} not installed; in the clone, run pip install -e ".[lab]"'
    assert done.stderr.splitlines()[-1] == message
    assert "Traceback" not in done.stderr
