"""The distribution holds t3nsor and t3nsor_peft, needs torch only, and works outside the clone; peft is an extra."""

import os
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import t3nsor
from t3nsor_peft.versions import OLDEST, TOO_NEW

ROOT = Path(__file__).parent.parent
SOURCES = (
    "pyproject.toml",
    "setup.py",
    "LICENSE",
    "docs/t3nsor.md",
    "t3nsor",
    "t3nsor_peft",
    "adapters",
    "common",
    "examples",
)


# Training, saving and loading, with nothing of the clone.
USE = """
import sys, torch, t3nsor_peft
from peft import PeftModel, get_peft_model

assert t3nsor_peft.__file__.startswith(sys.argv[1])
base = torch.nn.Sequential(torch.nn.Linear(16, 16))
config = t3nsor_peft.TTLoraConfig(r=2, target_modules=["0"])
model = get_peft_model(base, config)
model(torch.ones(2, 16)).square().mean().backward()
torch.optim.SGD(model.parameters(), 0.1).step()
model.save_pretrained("mine")
y = model(torch.ones(2, 16))
again = PeftModel.from_pretrained(model.unload(), "mine")
assert torch.equal(again(torch.ones(2, 16)), y)
assert not {"adapters", "common", "seq2seq", "utils"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = ROOT / name, folder / "project" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*command, str(folder / "project")], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_two_libraries_only(wheel):
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(next(n for n in names if n.endswith("METADATA"))).decode())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"t3nsor", "t3nsor_peft"}
    libraries = ("t3nsor", "t3nsor_peft")
    modules = {path.relative_to(ROOT).as_posix() for name in libraries for path in (ROOT / name).rglob("*.py")}
    assert modules | {f"{name}/py.typed" for name in libraries} <= names
    assert metadata["Version"] == t3nsor.__version__
    needs = metadata.get_all("Requires-Dist")
    assert [need for need in needs if "extra ==" not in need] == ["torch>=2.6"]
    (peft,) = [need for need in needs if need.endswith('extra == "peft"')]
    assert Requirement(peft).specifier == SpecifierSet(f">={OLDEST},<{TOO_NEW}")


def test_the_wheel_works_outside_the_clone(wheel, tmp_path):
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    place = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [sys.executable, "-W", "ignore", "-c", USE, str(tmp_path / "site")]
    subprocess.run(command, cwd=tmp_path, env=os.environ | place, check=True)
