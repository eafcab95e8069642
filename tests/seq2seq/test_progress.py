"""What a run prints outside a terminal is lines of text."""

import os
import re

import pytest
from transformers.utils import logging

from run_seq2seq import main
from seq2seq.progress import bars_on_terminals_only
from tests.conftest import TINY_RUN
from tests.seq2seq.processes import arguments_of


@pytest.fixture
def bars():
    logging.enable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.mark.usefixtures("bars")
def test_a_log_has_no_control_characters(tiny_backbone, tmp_path, capfd):
    keys = {**TINY_RUN, "model_name_or_path": str(tiny_backbone), "model_config": None, "tokenizer_name": None}
    keys |= {"disable_tqdm": False, "output_dir": str(tmp_path / "out"), "logging_steps": 1}
    assert main(arguments_of("configs/tt_adapter.json", **keys)) == 0
    printed = capfd.readouterr()
    assert not re.findall(r"[^\n -~\u00a0-\uffff]", printed.out + printed.err)
    assert printed.out.count("'loss': ") == 3


@pytest.mark.usefixtures("bars")
@pytest.mark.parametrize("terminal", [False, True])
def test_bars_are_where_standard_error_is_a_terminal(terminal, monkeypatch):
    master, slave = os.openpty()
    with open(slave if terminal else os.devnull, "w") as stream, open(master):
        monkeypatch.setattr("sys.stderr", stream)
        assert bars_on_terminals_only() is logging.is_progress_bar_enabled() is terminal
    if not terminal:
        os.close(slave)
