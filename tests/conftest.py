import os

# Tests never ask a hub; what they need is embedded, shipped or written by themselves.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
# Their matrices are too small for threads, which wait for each other where another process holds a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Their exact values are those of a CPU; CUDA_VISIBLE_DEVICES=0 runs them on a GPU all the same.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import copy
import gc
import json
import runpy
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from run_seq2seq import main
from tests.methods import changed
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

ROOT = Path(__file__).parent.parent
_others = "expressivity", "sweeps"
_of_runs = [path for path in (ROOT / "configs").rglob("*.json") if path.parent.name not in _others]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in _of_runs)
# 2,000 pieces, by train_tokenizer from vader-amazon and vader-movie: it is read ten times as fast as that of t5-nano.
TOKENIZER = str(ROOT / "tests" / "tokenizer")
TINY = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2}
# A backbone that trains in half a second: what a run does to it is what it does to any other.
TINIEST = {**TINY, "num_layers": 1, "num_decoder_layers": 1}
TINY_RUN = {
    "model_name_or_path": None,
    "model_config": TINIEST,
    "tokenizer_name": TOKENIZER,
    "task_name": "vader-amazon",  # the smallest of the sets
    "task_reduction_factor": 4,
    "tt_rank": 2,
    "max_train_samples": 48,
    "max_val_samples": 16,
    "max_test_samples": 16,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "disable_tqdm": True,
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One process for each core that this process may use; by itself xdist counts the physical ones of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def pytest_collection_finish():
    """Take what is imported and collected out of garbage collection: every run collects twice, at 0.3 s each."""
    freeze()


def pytest_runtest_teardown():
    """And what tests imported: a first run imports as much again, which the runs after it would pay for."""
    if len(sys.modules) > freeze.modules + 50:
        freeze()


def freeze() -> None:
    gc.collect()
    gc.freeze()
    freeze.modules = len(sys.modules)


@pytest.fixture
def tiny_config() -> T5Config:
    return T5Config(**TINY, vocab_size=120, dropout_rate=0.0, decoder_start_token_id=0)


@pytest.fixture
def shallow_config(tiny_config) -> T5Config:
    """One block a stack, for what every block does alike."""
    return changed(tiny_config, num_layers=1, num_decoder_layers=1)


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory) -> Path:
    """A directory with a random model of `tiny_config`. Tests read it only."""
    return written_t5(tmp_path_factory.mktemp("tiny_t5"), TINY)


@pytest.fixture(scope="session")
def shallow_t5(tmp_path_factory) -> Path:
    """The same of `shallow_config`."""
    return written_t5(tmp_path_factory.mktemp("shallow_t5"), TINIEST)


def written_t5(directory: Path, sizes: dict[str, int]) -> Path:
    torch.manual_seed(0)
    config = T5Config(**sizes, vocab_size=120, dropout_rate=0.0, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def loaded_t5(shallow_t5):
    """loaded_t5(dtype) -> a copy of the model that was loaded from `shallow_t5` in this dtype."""
    load = cache(lambda dtype: T5ForConditionalGeneration.from_pretrained(shallow_t5, dtype=dtype))
    return lambda dtype=torch.float32: copy.deepcopy(load(dtype))


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZER)


@pytest.fixture(scope="session")
def tiny_backbone(tokenizer, tmp_path_factory) -> Path:
    """A directory with a random backbone for runs, and its tokenizer. Tests read it only."""
    directory = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    config = T5Config(**TINIEST, vocab_size=len(tokenizer), decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "input_ids": torch.randint(3, 120, (3, 7), generator=generator),
        "labels": torch.randint(3, 120, (3, 4), generator=generator),
    }


@pytest.fixture
def run_main(tmp_path, capfd):
    """run_main("configs/x.json", key=value ..) -> (exit status, standard error lines, output directory)."""

    def call(config: str | Path, **overrides):
        overrides = {"output_dir": str(tmp_path / "out"), **overrides}
        path = ROOT / config
        arguments = [part for key, value in overrides.items() for part in (f"--{key}", json.dumps(value))]
        capfd.readouterr()
        status = main([str(path), *arguments])
        return status, capfd.readouterr().err.strip().splitlines(), Path(overrides["output_dir"])

    return call


@pytest.fixture
def run_script(monkeypatch, capsys):
    """run_script("docs/x.py", "--out", path ..) -> (exit status, lines of output, lines of errors), in this process."""

    def call(script: str, *arguments):
        path = ROOT / script
        monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    return call


@pytest.fixture
def run_experiment(tmp_path, capsys):
    """run_experiment("n_diagonal", seed=1) -> (status, lines of output, lines of errors, the directory)."""
    from run_expressivity import main as measure

    def call(config, *flags, **overrides):
        path = config if isinstance(config, Path) else ROOT / "configs" / "expressivity" / f"{config}.json"
        arguments = [part for name, value in overrides.items() for part in (f"--{name}", json.dumps(value))]
        status = measure([str(path), "--output_dir", str(tmp_path / "out"), *arguments, *flags])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines(), tmp_path / "out"

    return call
