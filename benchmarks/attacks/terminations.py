"""SIGTERM at a random moment: one line and status 143, and the same command goes on."""

import signal
import time

from attacks.outcome import TRACEBACK, Campaign, Outcome, Trial
from attacks.processes import Process, program
from attacks.reference import command, compared, facts, started_again


def attempt(trial: Trial) -> Outcome:
    out, log = trial.directory / "out", trial.directory / "log"
    seconds = 0.1 + trial.random.uniform(0, 0.85) * facts(trial.reference)["seconds"]
    what = f"SIGTERM after {seconds:.2f} s"
    process = Process(program, command(trial.reference, out), log=log)
    time.sleep(seconds)
    process.signal(signal.SIGTERM)
    ended = process.wait()
    if ended.status == 0:
        return compared(out, trial.reference, f"{what}, when the run was finished")
    said = [line for line in ended.errors if line.strip() and not line.startswith("warning: ")]
    if ended.status != 143 or len(said) != 1:
        return Outcome(TRACEBACK, f"{what}: status {ended.status} and {len(said)} lines, {said[-1:]}")
    if (out / "results.json").exists():  # the last thing that a run writes
        return compared(out, trial.reference, f"{what}, when the results were written")
    return started_again(out, trial.reference, f"{what}: {said[0]}", log)


CAMPAIGN = Campaign("terminate", "SIGTERM at a random moment", 10, 1, attempt)
