"""The imports inside t3nsor: no circle, and the engine knows little of the rest."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What contraction/ may import from t3nsor outside itself.
ALLOWED = {"t3nsor.cores", "t3nsor.shapes", "t3nsor.errors", "t3nsor.autocast", "t3nsor.tensor_train"}
# The modules of contraction/; each may import only those after it.
TOP_DOWN = [
    *("explain", "ops", "autograd", "torch_internals", "engine", "cost_model", "machines"),
    *("factors", "chain", "full", "paired", "gemm", "plans"),
]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(path): path.read_text() for path in sorted((ROOT / "t3nsor").rglob("*.py"))}


def imports(source: str) -> set[str]:
    """The modules of t3nsor that `source` imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the module they lead to"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & SOURCES.keys()
            found.update(submodules or {node.module})
    return {name for name in found if name.split(".")[0] == "t3nsor"}


def imports_from_above(source: str, module: str) -> set[str]:
    """The modules that `source`, as this module of contraction/, must not import."""
    below = {f"t3nsor.contraction.{name}" for name in TOP_DOWN[TOP_DOWN.index(module) + 1 :]}
    return imports(source) - ALLOWED - below


def circle(sources: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle, or an empty list."""
    sorter = TopologicalSorter({name: imports(source) for name, source in sources.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_import_circle():
    assert circle(SOURCES) == []


@pytest.mark.parametrize("module", TOP_DOWN)
def test_the_engine_imports_downwards_only(module):
    assert not imports_from_above(SOURCES[f"t3nsor.contraction.{module}"], module)


def test_every_module_of_the_engine_has_a_level():
    prefix = "t3nsor.contraction."
    assert {name.removeprefix(prefix) for name in SOURCES if name.startswith(prefix)} == set(TOP_DOWN)
    assert not imports(SOURCES["t3nsor.contraction"])


def test_violations_are_found():
    assert imports_from_above("from t3nsor.layers import TTLinear", "ops") == {"t3nsor.layers"}
    assert imports_from_above("def f():\n    from t3nsor import norms", "ops") == {"t3nsor.norms"}
    assert imports_from_above("from t3nsor import ShapeError", "gemm") == {"t3nsor"}
    assert imports_from_above("import t3nsor.contraction.engine", "gemm") == {"t3nsor.contraction.engine"}
    upward = SOURCES["t3nsor.contraction.gemm"] + "from t3nsor.contraction.ops import tt_matmul\n"
    assert "t3nsor.contraction.gemm" in circle(SOURCES | {"t3nsor.contraction.gemm": upward})
