PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Compiling modules that are never imported would take most of the time.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt

# The tests start many processes; without bytecode files each of them would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all clean

demo: $(VENV)/lab
	$(BIN)/python run_seq2seq.py configs/tt_adapter.json

test: TESTS := -m "not slow"
test test-all: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal $(TESTS)

# torch comes first and pinned: a bare requirement of another package would install the newest build.
$(VENV)/lab: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable ".[lab]"
	touch $@

$(VENV)/dev: $(VENV)/lab
	$(INSTALL) --editable ".[lab,dev]"
	touch $@

clean:
	rm -rf $(VENV)
