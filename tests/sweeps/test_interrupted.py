"""A sweep that loses its driver, a worker or its time ends with the table of one that did not."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.sweeps.small import CELLS, SWEEP, starts, table_in, written

WAIT = 120.0  # seconds


def until(condition, what: str):
    """The value of `condition()` once it is true."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen in {WAIT:.0f} s")


os.environ.setdefault("RAY_worker_niceness", "0")  # Ray lowers the priority of its workers


def driver(file: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "run_sweep.py"), str(file), *arguments]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)


def recorded(out: Path) -> int:
    file = out / "cells.jsonl"
    return sum('"cell":' in line for line in file.read_text().splitlines()) if file.exists() else 0


def working(out: Path) -> list[int]:
    """The processes that run cells now, by what they write into the directories of the cells."""
    found = []
    for lock in (out / "cells").rglob(".lock"):
        try:
            holder = re.match(r"process (\d+)", lock.read_text())
        except FileNotFoundError:  # it has just ended
            continue
        if holder and is_alive(int(holder[1])):
            found.append(int(holder[1]))
    return found


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "signalled"), [((), signal.SIGTERM), (("--ray", "local"), signal.SIGKILL)], ids=["processes", "ray"]
)
def test_driver_and_worker_killed(where, signalled, tmp_path, reference):
    if where:
        pytest.importorskip("ray")
    file, out = written(tmp_path), tmp_path / "out"
    first = driver(file, "--workers", "2", *where)
    until(lambda: recorded(out) >= 2, "two finished cells")
    os.kill(until(lambda: working(out), "a cell under way")[0], signalled)
    until(lambda: recorded(out) >= 5, "the sweep going on without the worker")
    orphans = working(out)
    first.kill()
    first.communicate(timeout=WAIT)
    until(lambda: not any(map(is_alive, orphans)), "the end of the driver's cells")
    before = recorded(out)
    second = driver(file, "--workers", "2", *where)
    _, errors = second.communicate(timeout=WAIT)
    assert second.returncode == 0, errors
    assert before < CELLS
    assert table_in(out / "cells.jsonl") == table_in(reference / "cells.jsonl")
    counts = starts(out)
    assert len(counts) == CELLS
    assert set(counts.values()) <= {1, 2}
    assert 2 in counts.values()


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_goes_on(tmp_path, reference):
    """A terminal sends the signal to all processes; the workers leave it to the driver, which lets them save."""
    file, out = written(tmp_path, configurations=SWEEP["configurations"][1:]), tmp_path / "out"
    first = driver(file, "--workers", "2")
    until(lambda: recorded(out) >= 1 and working(out), "a cell under way")
    os.killpg(first.pid, signal.SIGINT)
    _, errors = first.communicate(timeout=WAIT)
    assert first.returncode == 130
    assert "goes on" in errors
    assert not working(out)
    assert not [log for log in out.rglob("*.log") if "interrupted" in log.read_text()]
    second = driver(file, "--workers", "2")
    second.communicate(timeout=WAIT)
    whole = table_in(reference / "cells.jsonl").items()
    assert table_in(out / "cells.jsonl") == {key: record for key, record in whole if record["row"] == "LoRA"}


@pytest.mark.slow
def test_what_a_cell_launches_ends_with_the_driver(tmp_path):
    file, out = written(tmp_path, launch=f"env {sys.executable}", seeds=[1], choose=None), tmp_path / "out"
    first = driver(file, "--workers", "1")
    launched = until(lambda: working(out), "a launched cell")
    first.kill()
    first.communicate(timeout=WAIT)
    until(lambda: not any(map(is_alive, launched)), "the end of what was launched")


@pytest.mark.slow
@pytest.mark.parametrize(("where", "hours"), [((), 0.0005), (("--ray", "local"), 0.002)], ids=["processes", "ray"])
def test_a_cell_that_hangs_is_ended(where, hours, sweep, tmp_path):
    if where:
        pytest.importorskip("ray")
    keys = {"launch": "sh -c 'sleep 4000.5'", "cell_hours": hours, "seeds": [1], "choose": None}
    status, lines, errors = sweep("--workers", "2", *where, **keys, tasks=["vader-amazon"])
    assert status == 1, errors
    assert f"took longer than cell_hours, {hours}" in lines[-2]
    assert "cells have failed" in errors[-1]
    until(lambda: not processes_of("sleep", "4000.5"), "the end of what was launched")


def processes_of(*command: str) -> list[Path]:
    wanted = "\0".join([*command, ""]).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            if path.read_bytes() == wanted:
                found.append(path)
    return found


@pytest.mark.slow
def test_hours(sweep, tmp_path, reference):
    status, lines, _ = sweep("--hours", "0.0005", "--workers", "1")
    assert status == 0
    assert "the same command goes on" in lines[-1]
    assert len(table_in(tmp_path / "out" / "cells.jsonl")) < CELLS
    status, _, _ = sweep("--workers", "2")
    assert status == 0
    assert table_in(tmp_path / "out" / "cells.jsonl") == table_in(reference / "cells.jsonl")


def test_finished_cells_are_not_run_again(sweep, tmp_path, reference):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cells.jsonl").write_text((reference / "cells.jsonl").read_text())
    status, lines, _ = sweep()
    assert status == 0
    assert f"{CELLS} of {CELLS} cells are finished, 0 of them" in lines[-1]
    assert not (tmp_path / "out" / "cells").exists()


def test_a_torn_last_line_and_a_damaged_result(sweep, tmp_path, reference):
    """The driver died while it wrote, and a file of the cell that it had not yet seen was damaged."""
    out = tmp_path / "out"
    out.mkdir()
    lines = (reference / "cells.jsonl").read_text().splitlines(keepends=True)
    (out / "cells.jsonl").write_text("".join(lines[:-1]) + lines[-1][:40])
    cell = json.loads(lines[-1])
    (directory,) = reference.rglob(f"*{cell['cell']}")
    copy = out / directory.relative_to(reference)
    copy.mkdir(parents=True)
    (copy / "results.json").write_text("{")
    (copy / "resolved_config.json").write_bytes((directory / "resolved_config.json").read_bytes())
    status, printed, _ = sweep()
    assert status == 0
    assert "1 of them in these" in printed[-1]
    assert table_in(out / "cells.jsonl") == table_in(reference / "cells.jsonl")


def test_what_is_no_record_file_is_not_written_over(sweep, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("my only copy, one line without a break")
    for file in (notes, tmp_path / "small.json"):
        status, _, errors = sweep("--records", str(file))
        assert status == 2
        assert "line 1" in errors[-1]
    assert notes.read_text() == "my only copy, one line without a break"


def test_a_damaged_line_in_the_middle_is_not_passed_over(sweep, tmp_path, reference):
    (tmp_path / "out").mkdir()
    lines = (reference / "cells.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "cells.jsonl").write_text("".join([lines[0][:40] + "\n", *lines[1:]]))
    status, _, errors = sweep()
    assert status == 2
    assert "line 1" in errors[-1]
