"""The files of a checkpoint: which there must be, and whether they are those that were written."""

import re
from collections.abc import Iterable
from pathlib import Path

from common.checksums import damage, is_sealed
from common.errors import ConfigError, warn_once
from common.json_text import object_in

STATE = "trainer_state.json"
RUN_FACTS = "run_facts.json"
NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
MODELS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


def checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a directory, oldest first. Raises ConfigError if one is a file."""
    found = [path for path in directory.glob("checkpoint-*") if NAME.fullmatch(path.name)]
    for path in found:
        if not path.is_dir():
            raise ConfigError(f"{path} is a file, in the place of a checkpoint; move it away")
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return the number of steps after which a checkpoint was written, by its name."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def read_facts(checkpoint: Path) -> dict:
    """Return the run facts of a whole checkpoint."""
    facts, state = (object_in(checkpoint / name) or {} for name in (RUN_FACTS, STATE))
    if "best_checkpoint" not in facts:  # of version 0.1.0, which left it to the trainer's state
        facts["best_checkpoint"] = Path(state.get("best_model_checkpoint") or "").name or None
    return facts


def newest_whole(found: Iterable[Path]) -> Path:
    """Return the newest of some checkpoints, oldest first, that can be resumed; name the others in warnings.

    Raises ConfigError if there is none.
    """
    faults = {}
    for checkpoint in reversed(list(found)):
        fault = fault_of(checkpoint)
        if fault is None:
            for damaged, why in faults.items():
                warn_once(f"{damaged} cannot be used: {why}; going on from {checkpoint.name}")
            return checkpoint
        faults[checkpoint] = fault
    shown = "; ".join(f"{checkpoint}: {fault}" for checkpoint, fault in faults.items())
    raise ConfigError(f"no checkpoint can be resumed ({shown}); set resume_from_checkpoint to false to start over")


def fault_of(checkpoint: Path) -> str | None:
    """Return why a checkpoint cannot be resumed to the same bits, or None: a file is missing, damaged or another's."""
    facts, state = (object_in(checkpoint / name) for name in (RUN_FACTS, STATE))
    for name, content in ((RUN_FACTS, facts), (STATE, state)):
        if content is None:
            return f"{name} is missing or cannot be read"
    return _fault_of_files(checkpoint, facts, state) or _fault_of_best(checkpoint)


def _fault_of_files(checkpoint: Path, facts: dict, state: dict) -> str | None:
    if is_sealed(facts):
        fault = damage(facts, checkpoint, RUN_FACTS)
        if fault is not None:
            return fault
    else:
        warn_once(f"{checkpoint} was written without checksums; damage to it cannot be noticed")
    processes = facts.get("processes", 1)
    best = facts.get("best_checkpoint") or state.get("best_model_checkpoint") or ""
    if not (isinstance(processes, int) and isinstance(facts.get("seconds"), int | float) and isinstance(best, str)):
        return f"{RUN_FACTS} does not say what it should"
    missing = [name for name in _required(processes) if not (checkpoint / name).is_file()]
    if not any((checkpoint / name).is_file() for name in MODELS):
        missing.append(MODELS[0])
    if missing:
        return f"{missing[0]} is missing"
    if state.get("global_step") != step_of(checkpoint):
        return f"{STATE} is that of step {state.get('global_step')}"
    return None


def _required(processes: int) -> list[str]:
    states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    return ["optimizer.pt", "scheduler.pt", *states]


def _fault_of_best(checkpoint: Path) -> str | None:
    """Return what is wrong with the best checkpoint so far, which the end of the run loads."""
    best = read_facts(checkpoint)["best_checkpoint"]
    if best in (None, checkpoint.name):
        return None
    if not NAME.fullmatch(best) or step_of(checkpoint.parent / best) > step_of(checkpoint):
        return f"it names {best} as the best checkpoint before it"
    fault = fault_of(checkpoint.parent / best)
    return fault and f"the best checkpoint before it, {best}, cannot be used: {fault}"
