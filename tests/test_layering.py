"""The import rule: arrows between rooms point down only, and no imports form a circle."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Room -> the rooms that it may import.
ROOMS = {
    "common": set(),
    "t3nsor": set(),
    "t3nsor_peft": {"t3nsor"},
    "expressivity": {"common", "t3nsor"},
    "adapters": {"common", "t3nsor"},
    "third_party": {"common", "t3nsor", "adapters"},
    "utils": {"common", "adapters", "third_party"},
    "seq2seq": {"common", "t3nsor", "adapters", "third_party"},
    "run_seq2seq": {"common", "seq2seq"},
    "run_expressivity": {"common", "expressivity", "seq2seq"},
    "run_sweep": {"common", "seq2seq"},
    "predict": {"common", "seq2seq"},
    "report": {"common", "seq2seq"},
}
# Room -> the packages from outside that it may import; of rooms that are not named, any.
OUTSIDE = {
    "common": set(),
    "t3nsor": {"torch"},
    "t3nsor_peft": {"torch", "peft", "transformers", "bitsandbytes", "torchao"},
    "adapters": {"torch"},
    "expressivity": {"torch", "matplotlib", "tqdm"},
}
HEAVY = {"transformers", "datasets", "wandb", "matplotlib", "peft", "sklearn", "scipy"}
# The modules of t3nsor from top to bottom: each may import those that come after it, and the engine of the rest only
# BELOW_THE_ENGINE.
BELOW_THE_ENGINE = ["t3nsor.tensor_train", "t3nsor.arithmetic", "t3nsor.cores", "t3nsor.shapes", "t3nsor.autocast"]
BELOW_THE_ENGINE += ["t3nsor.scaling", "t3nsor.machine", "t3nsor.timing", "t3nsor.errors"]
ENGINE = ["explain", "ops", "compiled", "measuring", "autograd", "engine", "cost_model", "factors", "chain", "full"]
ENGINE = [f"t3nsor.contraction.{name}" for name in (*ENGINE, "paired", "gemm", "torch_internals", "plans")]
T3NSOR = ["calibrate", "cross_layer", "joined", "embeddings", "norms", "layers", "excess", "automatic_shape"]
T3NSOR += ["initializers", "decompositions"]
T3NSOR = [*(f"t3nsor.{name}" for name in T3NSOR), *ENGINE, *BELOW_THE_ENGINE]


def modules() -> dict[str, Path]:
    """Every module of the project by its name."""
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    files += [ROOT / f"{room}.py" for room in ROOMS if (ROOT / f"{room}.py").exists()]
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in files}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): path for path, p in parts.items()}


def imports(tree: ast.AST) -> set[tuple[str, str]]:
    """(module, name in it) of all that a piece of code imports; of `import a.b` the name is empty."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {(argument.value, "") for argument in node.args if isinstance(argument, ast.Constant)}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room they lead to"
            found |= {(node.module, alias.name) for alias in node.names}
    return found


def violations(module: str, source: str) -> set[str]:
    """The imports in `source`, the code of `module`, that the rules forbid."""
    room, wrong = module.split(".")[0], set()
    for name, inner in imports(ast.parse(source)):
        name = f"{name}.{inner}" if f"{name}.{inner}" in T3NSOR else name
        package = name.split(".")[0]
        if package in ROOMS:
            allowed = package in {room, *ROOMS[room]}
        elif (ROOT / package).is_dir():  # tests, benchmarks, docs
            allowed = False
        else:
            allowed = room not in OUTSIDE or package in sys.stdlib_module_names or package in OUTSIDE[room]
        if module in T3NSOR and package == "t3nsor":
            allowed = name in T3NSOR[T3NSOR.index(module) + 1 :]
        if not allowed:
            wrong.add(name)
    return wrong


def circle(sources: dict[str, str]) -> list[str] | None:
    """Modules that import each other when they are loaded, if there are any. sources: module -> code."""
    graph = {}
    for module, source in sources.items():
        tree = ast.parse(source)
        for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]:
            function.body = []  # what is imported there is imported later
        for branch in [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]:
            branch.body = []
        named = {f"{name}.{inner}" if f"{name}.{inner}" in sources else name for name, inner in imports(tree)}
        graph[module] = (named & sources.keys()) - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


@pytest.mark.parametrize("module", modules())
def test_arrows_point_down(module):
    assert not violations(module, modules()[module].read_text())


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("adapters.lora", "def f():\n    from seq2seq.data import get_task", "seq2seq.data"),
        ("common.files", "import torch", "torch"),
        ("t3nsor.cores", "from common.errors import ConfigError", "common.errors"),
        ("run_expressivity", "from adapters import ConfigError", "adapters"),
        ("t3nsor.contraction.ops", "from t3nsor.layers import TTLinear", "t3nsor.layers"),
        ("t3nsor.contraction.gemm", "from t3nsor import ShapeError", "t3nsor"),
        ("t3nsor.contraction.gemm", "import t3nsor.contraction.engine", "t3nsor.contraction.engine"),
        ("t3nsor.shapes", "from t3nsor.contraction.gemm import blocks", "t3nsor.contraction.gemm"),
        ("t3nsor.tensor_train", "def f():\n    from t3nsor.layers import TTLinear", "t3nsor.layers"),
        ("adapters.lora", "importlib.import_module('seq2seq.data')", "seq2seq.data"),
        ("seq2seq.runs", "import benchmarks.controls", "benchmarks.controls"),
    ],
)
def test_an_arrow_up_is_found(module, source, wrong):
    assert wrong in violations(module, source)


def test_every_module_of_t3nsor_has_its_level():
    packages = {"t3nsor", "t3nsor.contraction"}
    assert {name for name in modules() if name.split(".")[0] == "t3nsor"} == {*T3NSOR, *packages}
    assert not imports(ast.parse(modules()["t3nsor.contraction"].read_text()))


def test_there_is_no_circle():
    assert circle({module: path.read_text() for module, path in modules().items()}) is None


def test_a_circle_is_found():
    assert set(circle({"a": "from b.c import d", "b.c": "import a", "e": "def f():\n    import a"})) == {"a", "b.c"}


def test_lower_rooms_import_without_heavy_packages():
    """In one process, as torch takes seconds to import: what all together do not import, none of them does."""
    code = "import importlib, sys\nfor room in ('t3nsor', 'adapters', 'expressivity'):\n"
    code += f"    importlib.import_module(room)\n    assert not {HEAVY} & set(sys.modules), room"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_misspelt_key_is_answered_without_heavy_packages():
    code = "import sys, run_seq2seq; assert run_seq2seq.main(['configs/tt_adapter.json', '--tt_rnk', '4']) == 2; "
    code += f"assert not {HEAVY} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stderr.strip() == "error: unknown key tt_rnk; did you mean tt_rank?"
