"""A file is whole at every moment: what was there before, or all of what was written."""

import json
import subprocess
import sys

import pytest

from common.errors import ConfigError
from common.files import check_writable, replacing, write_file, write_json
from tests.conftest import ROOT


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_file(path, "old")
    with replacing(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
        assert unfinished.suffix == path.suffix  # some writers choose the format by it
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    write_file(path, "old")

    def interrupted():
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_failure_to_write_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/below/a.txt cannot be written: Not a directory"):
        write_file(tmp_path / "file" / "below" / "a.txt", b"")
    full = OSError(28, "No space left on device")
    with pytest.raises(ConfigError, match="a.txt cannot be written: No space left"), replacing(tmp_path / "a.txt"):
        raise full
    assert names(tmp_path) == ["file"]


def test_the_message_names_the_key_and_an_error_about_another_file_stays_what_it_is(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(ConfigError, match="output_dir: .*a.txt cannot be written: Is a directory"):
        write_file(tmp_path / "a.txt", "new", key="output_dir")

    def read_what_is_missing():
        with replacing(tmp_path / "b.txt") as unfinished:
            unfinished.write_bytes((tmp_path / "missing").read_bytes())

    with pytest.raises(FileNotFoundError):
        read_what_is_missing()
    assert names(tmp_path) == ["a.txt"]


WRITE_OFTEN = """
import sys
from common.files import write_file

for _ in range(50):
    write_file(sys.argv[1], sys.argv[2] * 100_000)
"""


def test_two_processes_that_write_one_file_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE_OFTEN, path, letter], cwd=ROOT) for letter in "xy"]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            text = path.read_text()
            assert len(text) == 100_000
            assert len(set(text)) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert names(tmp_path) == ["a.txt"]


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [None, "ü"]})
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["b", "a"]
    write_json(tmp_path / "a.json", {"b": 1, "a": 2}, sort_keys=True)
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["a", "b"]


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "deep")
    assert names(tmp_path) == ["file"]
    with pytest.raises(ConfigError, match="output_dir is '.*below', but '.*file' is not a writable directory"):
        check_writable(tmp_path / "file" / "below")


def test_json_has_no_nan(tmp_path):
    """It would be read by Python alone."""
    content = {"a": float("nan"), "b": [float("inf"), {"c": (-float("inf"), 1.5)}], "d": True}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, {"c": [None, 1.5]}], "d": True}


def test_a_full_disk_names_the_file_and_the_space(tmp_path):
    write_file(tmp_path / "a.txt", "old")
    full = OSError(28, "No space left on device")  # without a name, as from a write

    def fill():
        with replacing(tmp_path / "a.txt") as unfinished:
            unfinished.write_text("half")
            raise full

    with pytest.raises(ConfigError, match=r"a.txt cannot be written: No space left on device, [\d.]+ MiB are free in"):
        fill()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]
