"""A run that nobody disturbs, one that stopped half-way, and comparisons with them."""

import hashlib
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

from attacks.outcome import IDENTICAL, WRONG, Outcome
from attacks.processes import program, run

CONFIG = "configs/tt_adapter.json"
TINY = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 1, "num_decoder_layers": 1}
# A run of some seconds: 3 epochs of 2 steps, with an evaluation and a checkpoint after each.
SETTINGS = {
    "model_name_or_path": None,
    "model_config": TINY,
    "tokenizer_name": "tests/tokenizer",  # small: half of a run would be reading that of t5-nano
    "task_name": "file",
    "source_template": "{text}",
    "labels": ["0", "1"],
    "max_train_samples": 32,
    "max_val_samples": 8,
    "max_test_samples": 8,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 16,
    "task_reduction_factor": 4,
    "tt_rank": 2,
    "logging_steps": 1,
    "save_total_limit": 2,
    "disable_tqdm": True,
    "overwrite_output_dir": False,
}
LAST_STEP = "step 6"
WHOLE, STOPPED, DATA, FACTS = "whole", "stopped", "own.csv", "facts.json"


def command(reference: Path, out: Path, **keys) -> list[str]:
    """The command line of the run, with its output directory and other keys changed."""
    keys = {**SETTINGS, "train_file": str(reference / DATA), "output_dir": str(out), **keys}
    return [CONFIG, *(part for key, value in keys.items() for part in (f"--{key}", json.dumps(value)))]


def watched(arguments: list[str], out: Path, facts: Path, kill_at: int | str | None) -> int:
    """Run, and die before a file operation or optimiser step, given by number or name; write the list of all."""
    from transformers import TrainerCallback

    from seq2seq import pipeline
    from seq2seq.trainer import AdapterTrainer

    events: list[str] = []

    def happened(event: str) -> None:
        if kill_at in (len(events), event):
            os.kill(os.getpid(), signal.SIGKILL)
        events.append(event)

    class Steps(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            happened(f"step {state.global_step}")

    class Watched(AdapterTrainer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs, callbacks=[Steps()])

    def audit(name: str, arguments: tuple) -> None:
        writes = name in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "open")
        if writes and arguments and isinstance(arguments[0], str | os.PathLike) and str(out) in str(arguments[0]):
            happened(f"{name} {arguments[0]}")

    pipeline.AdapterTrainer = Watched
    sys.addaudithook(audit)
    status = program(arguments)
    facts.write_text(json.dumps({"events": events}))
    return status


def prepare(reference: Path) -> None:
    """Make the undisturbed run and the one that stopped, unless they are there already."""
    if (reference / FACTS).exists():
        return
    shutil.rmtree(reference, ignore_errors=True)
    reference.mkdir(parents=True)
    rows = "".join(f"a film of {n} minutes,{n % 2}\n" for n in range(120))
    (reference / DATA).write_text("text,label\n" + rows)
    whole, stopped, events_file = reference / WHOLE, reference / STOPPED, reference / "events.json"
    # This one first: it also writes the cache of tokens, which would make the other one slower.
    first = run(watched, command(reference, stopped), stopped, events_file, LAST_STEP, log=reference / "log")
    start = time.monotonic()
    second = run(watched, command(reference, whole), whole, events_file, None, log=reference / "log")
    seconds = time.monotonic() - start
    if len(checkpoints(stopped)) != 2 or second.status != 0:
        raise RuntimeError("the undisturbed runs failed: " + "\n".join([*first.errors[-5:], *second.errors[-5:]]))
    events = json.loads(events_file.read_text())["events"]
    (reference / FACTS).write_text(json.dumps({"events": len(events), "seconds": seconds}))


def facts(reference: Path) -> dict:
    """How many events the undisturbed run has, and how many seconds it takes."""
    return json.loads((reference / FACTS).read_text())


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, the last one last."""
    steps = {path: path.name.removeprefix("checkpoint-") for path in out.glob("checkpoint-*") if path.is_dir()}
    return sorted((path for path in steps if re.fullmatch("[0-9]+", steps[path])), key=lambda path: int(steps[path]))


def tree(directory: Path) -> dict[str, str]:
    """The SHA-256 of every file below a directory, except the lock and the configuration, which names the directory."""
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    kept = {name: path for name, path in files.items() if name not in (".lock", "resolved_config.json")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}


def tensors(path: Path) -> dict[str, tuple]:
    """Name -> (dtype, shape, bytes) of a safetensors file."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    header.pop("__metadata__", None)
    return {
        name: (entry["dtype"], tuple(entry["shape"]), data[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }


def result_of(out: Path) -> dict:
    """What a finished run found: every tensor of its adapter, its scores, its counts and its history."""
    results = json.loads((out / "results.json").read_text())
    history = [
        {name: value for name, value in row.items() if not name.endswith(("runtime", "per_second"))}
        for row in results["history"]
    ]
    last = checkpoints(out)[-1]
    return {
        "adapter": tensors(out / "adapter_model.safetensors"),
        "last checkpoint": (last.name, tensors(last / "adapter_model.safetensors")),
        "scores": results["splits"],
        "parameters": results["parameters"],
        "history": history,
    }


def compared(out: Path, reference: Path, what: str) -> Outcome:
    """Compare a run that reported success with the undisturbed one."""
    try:
        found, expected = result_of(out), result_of(reference / WHOLE)
    except (OSError, ValueError, KeyError, IndexError) as error:
        return Outcome(WRONG, f"{what}: status 0, but {type(error).__name__}: {error}")
    different = [name for name in expected if found[name] != expected[name]]
    return Outcome(WRONG, f"{what}: other {', '.join(different)}") if different else Outcome(IDENTICAL, what)


def started_again(out: Path, reference: Path, what: str, log: Path) -> Outcome:
    """Give the same command again, and compare."""
    failure = run(program, command(reference, out), log=log).failure()
    if failure is None:
        return compared(out, reference, what)
    return Outcome(WRONG if failure.verdict == "refused" else failure.verdict, f"{what}; started again: {failure.what}")
