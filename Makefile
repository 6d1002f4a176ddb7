# `make demo` and `make test` do all the set-up. PYTHON=python3.11 make demo picks another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := recipes/picodet_s_416_trees_sparse75.yml

.PHONY: demo test test-fast lint clean

demo: $(VENV)/ready
	$(BIN)/paddle-sparse train $(DEMO)

test: $(VENV)/ready
	$(BIN)/python -m pytest

test-fast: $(VENV)/ready
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/ready: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' || \
	  { echo "$(PYTHON) is `$(PYTHON) --version 2>&1`; Python 3.9 to 3.11 is needed: PYTHON=python3.11 make ..." >&2; exit 1; }
	@echo "setting up $(VENV): some minutes the first time"
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,detection,deploy,dev]'
	@touch $@

clean:
	rm -rf $(VENV) output
