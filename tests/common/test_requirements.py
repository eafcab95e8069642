"""Without the packages of the laboratory every entry point says in one line how to get them."""

import subprocess
import sys

from common.requirements import LAB, check_installed
from tests.conftest import ROOT

PROGRAMS = "run_seq2seq", "run_expressivity", "report"


def test_they_are_installed_here():
    check_installed()


def test_missing_packages_are_one_line():
    """In a process of its own for all programs, which takes seconds to import torch."""
    code = f"import sys; sys.modules.update(dict.fromkeys({LAB})); import {', '.join(PROGRAMS)}\n"
    code += f"print([program.main(['x']) for program in ({', '.join(PROGRAMS)})])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    message = f'error: {", ".join(LAB)} not installed; in the clone, run pip install -e ".[lab]"'
    assert done.stderr.splitlines()[-len(PROGRAMS) :] == [message] * len(PROGRAMS)
    assert "Traceback" not in done.stderr
    assert done.stdout == "[2, 2, 2]\n"
