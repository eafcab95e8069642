import importlib.util

from adapters import METHODS
from tests.conftest import ROOT


def script(name: str):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_methods_is_that_of_the_registry():
    """If it is not: python docs/methods_table.py"""
    table = script("methods_table")
    assert table.FILE.read_text() == table.table()
    assert table.escaped("x | y") == r"x \| y"


def test_the_picture_of_a_block_names_every_method():
    (axes,) = script("block_figure").draw().axes
    written = ", ".join(text.get_text() for text in axes.texts).split(", ")
    assert set(METHODS) <= set(written)
