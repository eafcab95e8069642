import importlib.util

from tests.conftest import ROOT


def test_the_table_of_methods_is_that_of_the_registry():
    """If it is not: python docs/methods_table.py"""
    spec = importlib.util.spec_from_file_location("methods_table", ROOT / "docs/methods_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.FILE.read_text() == module.table()
