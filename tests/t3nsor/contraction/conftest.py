"""Tests of a few rows run both ways: as the node of the graph that more rows have, and as autograd's own operations."""

import pytest

from t3nsor.contraction import engine, plans


@pytest.fixture(autouse=True)
def nodes(monkeypatch):
    """Small tensors in a node of the graph, too, unless there are few rows."""
    monkeypatch.setattr(engine, "LITTLE", 0)
    engine._chosen_contraction.cache_clear()
    yield
    engine._chosen_contraction.cache_clear()


@pytest.fixture(params=["node", "composed"])
def either_way(request, monkeypatch, nodes):
    monkeypatch.setattr(plans, "FEW_ROWS", 0 if request.param == "node" else 10_000)
    engine._chosen_contraction.cache_clear()
