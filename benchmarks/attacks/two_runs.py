"""The same command twice at once: one run wins, the other one is refused in one line."""

import time

from attacks.outcome import REFUSED, WRONG, Campaign, Outcome, Trial
from attacks.processes import Process, program
from attacks.reference import command, compared, facts


def attempt(trial: Trial) -> Outcome:
    out, arguments = trial.directory / "out", command(trial.reference, trial.directory / "out")
    delay = trial.random.choice([0.0, trial.random.uniform(0, 0.9)]) * facts(trial.reference)["seconds"]
    what = f"the second {delay:.2f} s after the first"
    first = Process(program, arguments, log=trial.directory / "first")
    time.sleep(delay)
    second = Process(program, arguments, log=trial.directory / "second")
    failures = [process.wait().failure() for process in (first, second)]
    for failure in failures:
        if failure is not None and failure.verdict != REFUSED:
            return Outcome(failure.verdict, f"{what}: {failure.what}")
    if sum(failure is None for failure in failures) != 1:
        return Outcome(WRONG, f"{what}: {sum(failure is None for failure in failures)} runs succeeded")
    (refusal,) = [failure.what for failure in failures if failure is not None]
    return compared(out, trial.reference, f"{what}: {refusal}")


CAMPAIGN = Campaign("two_runs", "two runs at once", 10, 1, attempt)
