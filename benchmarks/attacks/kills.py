"""Kill -9 at a random moment, and start the run again."""

import signal
import time

from attacks.outcome import TRACEBACK, Campaign, Outcome, Trial
from attacks.processes import Process, program
from attacks.reference import command, compared, facts, started_again, watched


def attempt(trial: Trial) -> Outcome:
    out, log, known = trial.directory / "out", trial.directory / "log", facts(trial.reference)
    arguments = command(trial.reference, out)
    if trial.number % 2 == 0:
        event = trial.random.randrange(known["events"])
        what = f"killed before event {event} of {known['events']}"
        process = Process(watched, arguments, out, trial.directory / "events.json", event, log=log)
    else:
        seconds = trial.random.uniform(0.02, 0.95) * known["seconds"]
        what = f"killed after {seconds:.2f} s"
        process = Process(program, arguments, log=log)
        time.sleep(seconds)
        process.signal(signal.SIGKILL)
    ended = process.wait()
    if ended.status not in (0, -signal.SIGKILL):
        return ended.failure() or Outcome(TRACEBACK, f"{what}: status {ended.status}")
    if ended.status == 0 or (out / "results.json").exists():  # the last thing that a run writes
        return compared(out, trial.reference, f"{what}, when the run was finished")
    return started_again(out, trial.reference, what, log)


CAMPAIGN = Campaign("kill", "kill -9 at a random moment", 100, 1, attempt)
