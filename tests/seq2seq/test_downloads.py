"""Packages are downloaded through pip, and nothing of them is executed."""

import hashlib
import io
import os
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from common.errors import ConfigError
from seq2seq.downloads import fetch_from_index

NAME = "harmless-data"
FILE = "harmless-data-1.0.tar.gz"
SOURCE = ("--no-binary", ":all:")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A source distribution that leaves a mark when it is built, and an empty cache: (content, directory, mark)."""
    mark, links = tmp_path / "executed", tmp_path / "links"
    links.mkdir()
    leave_a_mark = f"open({str(mark)!r}, 'w').close()\n"
    backend = leave_a_mark + "def __getattr__(name): raise AttributeError(name)\n"
    files = {
        "setup.py": leave_a_mark,
        "backend.py": backend,
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n",
    }
    with tarfile.open(links / FILE, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"harmless-data-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return (links / FILE).read_bytes(), links, mark


def test_nothing_of_a_package_is_executed(package):
    content, _, mark = package
    path = fetch_from_index(f"{NAME}==1.0", FILE, hashlib.sha256(content).hexdigest(), SOURCE)
    assert path.read_bytes() == content
    assert not mark.exists()


def test_another_package_of_that_name_is_not_kept(package, tmp_path):
    _, _, mark = package
    with pytest.raises(ConfigError, match="does not have the expected sha256") as error:
        fetch_from_index(f"{NAME}==1.0", FILE, "0" * 64, SOURCE)
    assert "\n" not in str(error.value)
    assert not mark.exists()
    assert not list((tmp_path / "cache/t5-tensor-lab").iterdir())


@pytest.mark.parametrize("through", ["the current directory", "PYTHONPATH"])
def test_no_module_of_the_user_is_taken_for_pip(package, tmp_path, monkeypatch, through):
    content, _, mark = package
    place = tmp_path / "place"
    place.mkdir()
    for name in ("pip", "hashlib", "sitecustomize"):
        (place / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    if through == "PYTHONPATH":
        monkeypatch.setenv("PYTHONPATH", str(place))
    else:
        monkeypatch.chdir(place)
    fetch_from_index(f"{NAME}==1.0", FILE, hashlib.sha256(content).hexdigest(), SOURCE)
    assert not mark.exists()


def test_an_index_of_pips_configuration_is_asked(package, tmp_path, monkeypatch):
    """Of two files of that name, the one with the right checksum is kept."""
    content, links, mark = package
    simple = tmp_path / "server" / "simple" / NAME
    simple.mkdir(parents=True)
    (simple / FILE).write_bytes(content)
    (simple / "index.html").write_text(f'<!doctype html><html><body><a href="{FILE}">{FILE}</a></body></html>')
    (links / FILE).write_bytes(b"another one")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "server"))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        path = fetch_from_index(f"{NAME}==1.0", FILE, hashlib.sha256(content).hexdigest(), SOURCE)
        server.shutdown()
    assert path.read_bytes() == content
    assert not mark.exists()
