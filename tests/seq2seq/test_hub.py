"""Asking if the hub answers: a server on this machine, and a port without one."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import datasets
import pytest
from huggingface_hub import constants

from seq2seq import hub


@pytest.fixture(autouse=True)
def not_asked_yet(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    hub.hub_answers.cache_clear()
    yield
    hub.hub_answers.cache_clear()


@pytest.fixture
def server():
    """A server that refuses every request: HEAD is not implemented."""
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_refusal_is_an_answer(server, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    assert hub.hub_answers()
    assert not constants.HF_HUB_OFFLINE
    assert hub.reason(ValueError("first\nsecond")) == "first"


def test_without_an_answer_the_caches_are_used(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not hub.hub_answers()
    assert constants.HF_HUB_OFFLINE
    assert datasets.config.HF_HUB_OFFLINE
    assert "cannot be reached" in hub.reason(ValueError("x"))
