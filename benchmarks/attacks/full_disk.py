"""A disk that is too small: one line that names the place, nothing lost, and with more room the run goes on."""

import ctypes
import json
import os
import resource
import subprocess
from pathlib import Path

from attacks.outcome import REFUSED, WRONG, Campaign, Outcome, Trial
from attacks.processes import Process, program
from attacks.reference import command, compared, started_again

QUOTA = "files of at most"
LEAST, MOST = 4, 320  # KiB; the run needs about as much
NEW_NAMES, NEW_USER = 0x00020000, 0x10000000


def mounted(directory: Path, kib: int) -> bool:
    """Mount a file system of this size that only this process and its children see; False if that is not allowed."""
    directory.mkdir()
    libc, user, group = ctypes.CDLL(None), os.getuid(), os.getgid()
    if libc.unshare(NEW_NAMES if user == 0 else NEW_NAMES | NEW_USER):
        return False
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    private = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode == 0
    return private and _mount(directory, f"size={kib}k")


def _mount(directory: Path, options: str) -> bool:
    arguments = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    return subprocess.run(arguments, capture_output=True).returncode == 0


def limited(arguments: list[str], kib: int) -> int:
    """Run with a limit on the size of every file, where no file system can be mounted."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, kib * 1024))
    return program(arguments)


def attempt(trial: Trial) -> Outcome:
    disk, log = trial.directory / "disk", trial.directory / "log"
    out = disk / "out"
    part = (trial.number + CAMPAIGN.trials // 2) % CAMPAIGN.trials  # the first one is in the middle
    kib = LEAST + part * (MOST - LEAST) // (CAMPAIGN.trials - 1)
    arguments = command(trial.reference, out)
    real = mounted(disk, kib)
    if real:
        what, process = f"a file system of {kib} KiB", Process(program, arguments, log=log)
    else:
        kib = max(1, kib // 8)
        what, process = f"{QUOTA} {kib} KiB", Process(limited, arguments, kib, log=log)
    failure = process.wait().failure()
    if failure is None:
        return compared(out, trial.reference, f"{what}, which is enough")
    if failure.verdict != REFUSED:
        return Outcome(failure.verdict, f"{what}: {failure.what}")
    if str(disk) not in failure.what:
        return Outcome(WRONG, f"{what}: the line does not name the place: {failure.what}")
    if (out / "results.json").exists():
        return Outcome(WRONG, f"{what}: results of a run that failed: {json.dumps(failure.what)}")
    if real and not _mount(disk, "remount,size=64m"):
        raise RuntimeError(f"{disk} cannot be enlarged")
    return started_again(out, trial.reference, f"{what}: {failure.what}", log)


CAMPAIGN = Campaign("full_disk", "a full disk, then room", 20, 1, attempt)
