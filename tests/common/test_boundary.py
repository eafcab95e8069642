"""What leaves an entry point: one line and a status, or a fault that says so."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.boundary import guarded
from common.errors import ConfigError, RunFailed, Terminated
from tests.conftest import ROOT


def full_disk(name="/tmp/results.json"):
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


def outcome(capsys, error, *argv):
    """(status, lines on standard error) of a program that ends with `error`."""

    def program(arguments):
        raise error

    status = guarded(program, list(argv), "interrupted; start again")
    return status, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("tt_rank is 0; it must be at least 1"), 2, "error: tt_rank is 0; it must be at least 1"),
        (RunFailed("the loss is not finite"), 1, "error: the loss is not finite"),
        (Terminated("terminated; the same command goes on"), 143, "terminated; the same command goes on"),
        (KeyboardInterrupt(), 130, "interrupted; start again"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 2, "error: a.txt: No such file or directory"),
        (full_disk(), 2, "error: /tmp/results.json: No space left on device, "),
        (RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0"), 2, "MiB are free in"),
        (MemoryError("Unable to allocate 8 EiB"), 2, "error: the memory does not suffice (Unable to allocate 8 EiB)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: the memory does not suffice"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "error: a text cannot be read or writ"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, "error: the output was closed before all of it was written"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_is_foreseeable_is_one_line(capsys, error, status, line):
    got, lines = outcome(capsys, error)
    assert (got, len(lines)) == (status, 1)
    assert line in lines[0]


def test_a_success_is_0(capsys):
    assert guarded(lambda arguments: None, ["a"], "") == 0
    assert capsys.readouterr().err == ""


def test_a_message_stays_one_line_whatever_was_given(capsys):
    _, lines = outcome(capsys, ConfigError("a\nb\x1b[31m\ud800"))
    assert lines == ["error: a\\nb\\x1b[31m\\ud800"]
    _, lines = outcome(capsys, ConfigError("begins" + "x" * 500_000 + "; advice"))
    assert lines[0].startswith("error: begins")
    assert lines[0].endswith("; advice")
    assert len(lines[0]) < 3000


def test_a_fault_of_the_program_stays_visible(capsys):
    status, lines = outcome(capsys, ZeroDivisionError("division by zero"))
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith(
        "error: this is a fault of the program, not of its input: ZeroDivisionError: division by"
    )
    file = Path(lines[0].rpartition(" ")[2])
    assert "Traceback (most recent call last)" in file.read_text()
    assert "ZeroDivisionError: division by zero" in file.read_text()
    file.unlink()


def test_the_switch_shows_the_whole_traceback(capsys):
    try:
        try:
            int("x")
        except ValueError:
            raise ConfigError("x is no number") from None
    except ConfigError as raised:
        error = raised
    status, lines = outcome(capsys, error, "--traceback")
    assert status == 2
    assert lines[0] == "Traceback (most recent call last):"
    assert "ValueError: invalid literal for int() with base 10: 'x'" in lines
    assert lines[-1] == "common.errors.ConfigError: x is no number"


def test_the_switch_is_no_argument_of_the_program():
    seen = []
    guarded(seen.extend, ["a", "--traceback", "b"], "")
    assert seen == ["a", "b"]


def test_other_processes_are_silent_but_for_faults(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert outcome(capsys, ConfigError("wrong")) == (2, [])
    status, lines = outcome(capsys, KeyError("x"))
    assert status == 1
    Path(lines[0].rpartition(" ")[2]).unlink()


def test_secrets_are_masked_in_every_way_out(capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    message = "the key 0123456789abcdef at https://me:hunter22@host/ is wrong"
    for switch in ([], ["--traceback"]):
        _, lines = outcome(capsys, ConfigError(message), *switch)
        assert "0123456789abcdef" not in "".join(lines)
        assert "hunter22" not in "".join(lines)
    _, lines = outcome(capsys, ZeroDivisionError(message))
    file = Path(lines[0].rpartition(" ")[2])
    assert "0123456789abcdef" not in lines[0] + file.read_text()
    file.unlink()


PRINTS = "import sys; from common.boundary import guarded; sys.exit(guarded(lambda a: print('x' * 10**6), [], ''))"


@pytest.mark.parametrize(
    ("output", "status"),
    [("exec 1>/dev/full; ", 2), ("exec 1> >(exec true); sleep 0.3; ", 141)],
    ids=["full", "closed"],
)
def test_a_closed_pipe_and_a_full_output_are_one_line(output, status):
    command = f'{output}exec {sys.executable} -c "{PRINTS}"'
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
