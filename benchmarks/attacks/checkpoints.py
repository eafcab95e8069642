"""A run that stopped, one of whose checkpoints is damaged: refused, or resumed to the bits of the undisturbed run."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from attacks.outcome import REFUSED, WRONG, Campaign, Outcome, Trial
from attacks.processes import program, run
from attacks.reference import STOPPED, checkpoints, command, compared, tree

Damage = Callable[[random.Random, Path, Path], str]


def flip(rng: random.Random, path: Path) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(rng: random.Random, path: Path) -> None:
    """Keep the beginning of a file."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def some_file(rng: random.Random, checkpoint: Path) -> Path:
    return rng.choice(sorted(path for path in checkpoint.iterdir() if path.is_file()))


def flipped(rng, checkpoint, other):
    path = some_file(rng, checkpoint)
    flip(rng, path)
    return f"a bit of {path.name}"


def truncated(rng, checkpoint, other):
    path = some_file(rng, checkpoint)
    truncate(rng, path)
    return f"{path.name} truncated"


def lengthened(rng, checkpoint, other):
    path = some_file(rng, checkpoint)
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 99)))
    return f"bytes behind {path.name}"


def deleted(rng, checkpoint, other):
    path = some_file(rng, checkpoint)
    path.unlink()
    return f"{path.name} deleted"


def replaced(rng, checkpoint, other):
    path = some_file(rng, checkpoint)
    shutil.copyfile(other / path.name, path)
    return f"{path.name} of {other.name}"


def all_but_one_replaced(rng, checkpoint, other):
    path = some_file(rng, checkpoint)
    kept = path.read_bytes()
    shutil.rmtree(checkpoint)
    shutil.copytree(other, checkpoint)
    path.write_bytes(kept)
    return f"all but {path.name} of {other.name}"


def a_directory(rng, checkpoint, other):
    path = some_file(rng, checkpoint)
    path.unlink()
    path.mkdir()
    return f"a directory called {path.name}"


def edited(rng, checkpoint, other):
    path = rng.choice(sorted(checkpoint.glob("*.json")))
    content = json.loads(path.read_text())
    key = rng.choice(sorted(content))
    content[key] = rng.choice([None, -1, 0, 7, "x", [], {}, 1e300, True, [content[key]]])
    path.write_text(json.dumps(content))
    return f"{key} is {content[key]!r} in {path.name}"


def another_step(rng, checkpoint, other):
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text())
    state["global_step"] += rng.choice([-2, -1, 1, 2, 100])
    path.write_text(json.dumps(state))
    return f"global_step {state['global_step']}"


def renamed(rng, checkpoint, other):
    names = ["checkpoint-1", "checkpoint-3", "checkpoint-99", "checkpoint-0", "checkpoint-x", "checkpoint-²", "old"]
    name = rng.choice([name for name in names if name not in (checkpoint.name, other.name)])
    checkpoint.rename(checkpoint.with_name(name))
    return f"renamed to {name}"


def exchanged(rng, checkpoint, other):
    aside = checkpoint.with_name("aside")
    checkpoint.rename(aside)
    other.rename(checkpoint)
    aside.rename(other)
    return f"exchanged with {other.name}"


def emptied(rng, checkpoint, other):
    shutil.rmtree(checkpoint)
    if rng.random() < 0.5:
        checkpoint.mkdir()
        return "an empty directory"
    checkpoint.write_text("")
    return "a file in its place"


DAMAGES: tuple[Damage, ...] = (
    *(flipped, flipped, flipped, truncated, truncated, lengthened, deleted, replaced, all_but_one_replaced),
    *(a_directory, edited, edited, another_step, renamed, exchanged, emptied),
)


def attempt(trial: Trial) -> Outcome:
    out, log, rng = trial.directory / "out", trial.directory / "log", trial.random
    shutil.copytree(trial.reference / STOPPED, out)
    (out / ".lock").unlink(missing_ok=True)
    pair = checkpoints(out)
    which = rng.choice(["the newest", "the newest", "the older", "both"])
    what = f"{which} checkpoint: "
    if which == "both":
        damage = rng.choice([flipped, truncated, deleted, lengthened])
        what += " and ".join(damage(rng, each, each) for each in pair)
    else:
        checkpoint, other = pair[::-1] if which == "the newest" else pair
        what += rng.choice(DAMAGES)(rng, checkpoint, other)
    before = tree(out)
    ended = run(program, command(trial.reference, out), log=log)
    failure = ended.failure()
    if failure is None:
        return compared(out, trial.reference, what)
    if failure.verdict == REFUSED and tree(out) != before:
        return Outcome(WRONG, f"{what}: refused, but files changed")
    return Outcome(failure.verdict, f"{what}: {failure.what}")


CAMPAIGN = Campaign("checkpoints", "damaged checkpoints", 200, 1, attempt)
