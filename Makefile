# `make demo` and `make test` do all the set-up. PYTHON=python3.11 make demo picks another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PADDLE3 := .venv-paddle3
DEMO := recipes/picodet_s_416_trees_sparse75.yml

.PHONY: demo test test-fast test-paddle3 bench published-table accuracy soak lint clean

demo: $(VENV)/ready
	$(BIN)/paddle-sparse train $(DEMO)

test: $(VENV)/ready
	$(BIN)/python -m pytest

test-fast: $(VENV)/ready
	$(BIN)/python -m pytest -m "not slow"

test-paddle3: $(PADDLE3)/ready
	$(PADDLE3)/bin/python -m pytest --ignore paddle_sparse_cb/detection

bench: $(VENV)/ready
	$(BIN)/python tools/bench_pruner.py
	$(BIN)/python tools/bench_fit.py

published-table: $(VENV)/ready
	$(BIN)/python tools/published_table.py

# Resumable: runs whose result is in output/accuracy are not run again. ARGS="--epochs 12 --seeds 5" makes it larger.
accuracy: $(VENV)/ready
	$(BIN)/python tools/accuracy.py $(ARGS)

# Kills trainings and damages files; some ten minutes.
soak: $(VENV)/ready
	$(BIN)/python tools/soak.py $(ARGS)
	$(BIN)/python tools/fuzz.py

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/ready: EXTRAS := cpu,detection,deploy,dev
$(VENV)/ready: constraints.txt
$(PADDLE3)/ready: EXTRAS := cpu,dev
$(PADDLE3)/ready: constraints-paddle3.txt

$(VENV)/ready $(PADDLE3)/ready: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' || \
	  { echo "$(PYTHON) is `$(PYTHON) --version 2>&1`; Python 3.9 to 3.11 is needed: PYTHON=python3.11 make ..." >&2; exit 1; }
	@echo "setting up $(@D): some minutes the first time"
	@$(PYTHON) -m venv $(@D) || { echo "no venv module: apt-get install python3-venv" >&2; exit 1; }
	@$(@D)/bin/pip install --quiet --disable-pip-version-check -c $(filter constraints%,$^) -e '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf $(VENV) $(PADDLE3) output
