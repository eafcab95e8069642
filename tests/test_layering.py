"""The rooms of the project and who may import whom: top imports bottom, never the reverse."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BOTTOM_UP = [
    "t3nsor",
    "expressivity",
    "adapters",
    "third_party",
    "utils",
    "seq2seq",
    "run_seq2seq",
    "run_expressivity",
    "report",
]
TORCH_ONLY = ["t3nsor", "expressivity", "adapters"]
LAZY = {"expressivity": {"matplotlib"}}
FORBIDDEN = {"transformers", "datasets", "wandb"}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def source_files() -> list[Path]:
    files = [path for room in BOTTOM_UP for path in (ROOT / room).rglob("*.py")]
    return files + [ROOT / f"{room}.py" for room in BOTTOM_UP if (ROOT / f"{room}.py").exists()]


def imported_packages(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room they lead to"
            names.add(node.module.split(".")[0])
    return names


def arrows_up(room: str, source: str) -> set[str]:
    """The rooms above `room` that `source` imports."""
    return imported_packages(source) & set(BOTTOM_UP[BOTTOM_UP.index(room) + 1 :])


@pytest.mark.parametrize("path", source_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_arrow_points_up(path):
    source, room = path.read_text(), room_of(path)
    assert not arrows_up(room, source)
    if room in TORCH_ONLY:
        assert not imported_packages(source) & FORBIDDEN


def test_an_arrow_up_is_found():
    assert arrows_up("adapters", "def f():\n    from seq2seq.data import get_task") == {"seq2seq"}


@pytest.mark.parametrize("room", TORCH_ONLY)
def test_lower_rooms_import_without_transformers(room):
    code = f"import {room}, sys; assert not {FORBIDDEN | LAZY.get(room, set())} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
