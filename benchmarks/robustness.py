"""Attacks the program from outside, and counts how it ends: refused in one line, right, wrong, or with a traceback.

    python benchmarks/robustness.py [--only kill terminate ..] [--quick] [--workers 2] [--seed 0] ..

The campaigns are in benchmarks/attacks/, one file each. Every trial has its own seed and runs in a process of its own.
Each finished trial is one line of OUTPUT_DIR/trials.jsonl, and the same command goes on where it was stopped. The
directory of a trial that ended wrong, or with a traceback, is kept below OUTPUT_DIR/kept; if there is one, the exit
status is 1.
"""

import argparse
import json
import os
import random
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from arguments import Parser, whole  # noqa: E402
from attacks import adapters, checkpoints, configurations, full_disk, kills, reference, terminations, two_runs  # noqa: E402
from attacks.outcome import IDENTICAL, REFUSED, TRACEBACK, WRONG, Campaign, Outcome, Trial  # noqa: E402

from common.errors import ConfigError  # noqa: E402
from common.ownership import Ownership  # noqa: E402

CAMPAIGNS = (
    *(configurations.DRY, configurations.REAL, adapters.CAMPAIGN, checkpoints.CAMPAIGN, kills.CAMPAIGN),
    *(terminations.CAMPAIGN, full_disk.CAMPAIGN, two_runs.CAMPAIGN),
)
NAMES = [campaign.name for campaign in CAMPAIGNS]
COLUMNS = {REFUSED: "refused in one line", IDENTICAL: "identical", WRONG: "wrong", TRACEBACK: "traceback"}
FINISHED = "trials.jsonl"
BAD = (WRONG, TRACEBACK)
Key = tuple[str, int]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Attack the program, and count how it ends.", allow_abbrev=False)
    add = parser.add_argument
    add("--only", nargs="+", choices=NAMES, default=NAMES, help="campaigns to carry out")
    add("--quick", action="store_true", help="a few trials of each, in seconds")
    add("--trials", type=whole, help="number of trials of each campaign, instead of its own")
    add("--seed", type=lambda text: whole(text, 0), default=0, help="of the choices of all trials")
    add("--workers", type=whole, default=len(os.sched_getaffinity(0)), help="trials at a time")
    add("--output_dir", type=Path, default=Path("outputs/robustness"), help="where everything is written")
    add("--retry", action="store_true", help="repeat the finished trials that ended wrong or with a traceback")
    add("--again", action="store_true", help="forget the trials that are finished")
    return parser.parse_args(arguments)


def attack(args: argparse.Namespace) -> int:
    """Carry out all trials that are not finished, and print the table; return the exit status."""
    place = args.output_dir.resolve()
    if args.again:
        for name in ("reference", "trials", "kept"):
            shutil.rmtree(place / name, ignore_errors=True)
        (place / FINISHED).unlink(missing_ok=True)
    chosen = [campaign for campaign in CAMPAIGNS if campaign.name in args.only]
    wanted = {(each.name, k): each for each in chosen for k in range(count_of(each, args))}
    found = finished(place, args.seed)
    open_keys = [key for key in wanted if key not in found or (args.retry and found[key].verdict in BAD)]
    if open_keys:
        preload()
        reference.prepare(place / "reference")
        adapters.prepare(place / "reference")
        shutil.rmtree(place / "trials", ignore_errors=True)
    with open(place / FINISHED, "a") as file:
        for key, outcome in carried_out(open_keys, wanted, place, args):
            found[key] = outcome
            row = {"campaign": key[0], "trial": key[1], "seed": args.seed, **vars(outcome)}
            file.write(f"\n{json.dumps(row)}")
            file.flush()
            if outcome.verdict in BAD:
                print(f"{outcome.verdict}: {key[0]} {key[1]}: {outcome.what}", flush=True)
    print_table(chosen, {key: found[key] for key in wanted})
    return int(any(found[key].verdict in BAD for key in wanted))


def count_of(campaign: Campaign, args: argparse.Namespace) -> int:
    """How many trials of a campaign are wanted."""
    return args.trials or (campaign.quick if args.quick else campaign.trials)


def finished(place: Path, seed: int) -> dict[Key, Outcome]:
    """The outcomes that earlier calls with this seed have written; a line that was cut off does not count."""
    path, found = place / FINISHED, {}
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError):
            row = json.loads(line)
            if row["seed"] == seed:
                found[row["campaign"], row["trial"]] = Outcome(row["verdict"], row["what"])
    return found


def preload() -> None:
    """Import what the trials need, so that the processes forked for them start at once.

    Before torch is imported: forked processes cannot share its threads. No trial asks a hub.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    import run_seq2seq  # noqa: F401
    from seq2seq import dry_run, pipeline, series, summary, training_arguments, unread  # noqa: F401


def carried_out(
    keys: list[Key], campaigns: dict[Key, Campaign], place: Path, args: argparse.Namespace
) -> Iterator[tuple[Key, Outcome]]:
    """Carry out trials, `workers` at a time; yield each outcome when it is there."""
    waiting, running = keys[::-1], {}
    while waiting or running:
        while waiting and len(running) < args.workers:
            key = waiting.pop()
            rng = random.Random(f"{args.seed} {key[0]} {key[1]}")
            directory = place / "trials" / f"{key[0]}-{key[1]}"
            directory.mkdir(parents=True)
            trial = Trial(key[1], rng, directory, place / "reference")
            running[forked(campaigns[key], trial)] = key, directory
        process, status = os.wait()
        key, directory = running.pop(process)
        verdict = directory / "verdict.json"
        if status or not verdict.exists():
            raise ConfigError(f"trial {key[1]} of {key[0]} failed itself; see {directory / 'trial.log'}")
        outcome = Outcome(**json.loads(verdict.read_text()))
        keep = place / "kept" / directory.name
        if outcome.verdict in BAD:
            shutil.rmtree(keep, ignore_errors=True)
            keep.parent.mkdir(exist_ok=True)
            directory.rename(keep)
        else:
            shutil.rmtree(directory)
        yield key, outcome


def forked(campaign: Campaign, trial: Trial) -> int:
    """Start a trial in a process of its own, which writes its outcome to verdict.json; return its number."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.dup2(os.open(trial.directory / "trial.log", os.O_CREAT | os.O_WRONLY), sys.stderr.fileno())
        outcome = campaign.attempt(trial)
        (trial.directory / "verdict.json").write_text(json.dumps(vars(outcome)))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def print_table(campaigns: list[Campaign], found: dict[Key, Outcome]) -> None:
    """Print the table in Markdown."""
    print(f"| attack | tried | {' | '.join(COLUMNS.values())} |")
    print("|---|" + "---:|" * (len(COLUMNS) + 1))
    for campaign in campaigns:
        verdicts = [outcome.verdict for (name, _), outcome in found.items() if name == campaign.name]
        cells = [len(verdicts), *(verdicts.count(verdict) for verdict in COLUMNS)]
        print(f"| {campaign.title} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    if any(name == full_disk.CAMPAIGN.name and full_disk.QUOTA in outcome.what for (name, _), outcome in found.items()):
        print("No file system could be mounted here; the full disk was a limit on the size of each file.")


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    try:
        with Ownership(args.output_dir, "--output_dir"):
            return attack(args)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
