"""The distribution holds t3nsor and t3nsor_peft, and needs torch only; peft is an extra."""

import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import t3nsor

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "setup.py", "LICENSE", "docs/t3nsor.md", "t3nsor", "t3nsor_peft", "adapters", "common")


def test_the_wheel_holds_the_two_libraries_only(tmp_path):
    for name in SOURCES:
        source, copy = ROOT / name, tmp_path / "project" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "project")], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(next(n for n in names if n.endswith("METADATA"))).decode())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"t3nsor", "t3nsor_peft"}
    libraries = ("t3nsor", "t3nsor_peft")
    modules = {path.relative_to(ROOT).as_posix() for name in libraries for path in (ROOT / name).rglob("*.py")}
    assert modules | {f"{name}/py.typed" for name in libraries} <= names
    assert metadata["Version"] == t3nsor.__version__
    assert [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need] == ["torch>=2.6"]
