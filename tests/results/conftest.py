from pathlib import Path

import pytest

from tests.results.written_cells import TRUTH, written_cells


@pytest.fixture
def cells(tmp_path) -> Path:
    return written_cells(tmp_path / "cells.jsonl", TRUTH, compare={"TT": ["LoRA"]}, without_backbone={"words"})
