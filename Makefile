# `make demo` and `make test` set up everything they need. PYTHON=python3.11 make demo chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The animals are photographs in packages of Debian 12; elsewhere, trees from the Python package index.
OS_RELEASE := /etc/os-release
DEMO := recipes/picodet_s_$(if $(shell grep -s bookworm $(OS_RELEASE)),192_animals,416_trees)_sparse75.yml

# Further environments for tests: Paddle 3 on Python 3.10 if there is one, and the core on Python 3.9.
PADDLE3 := .venv-paddle3
PADDLE3_PYTHON ?= $(or $(shell .ci/find-python 3.10),$(PYTHON))
CORE := .venv-core
CORE_PYTHON ?= $(shell .ci/find-python 3.9)

.PHONY: demo test test-fast test-paddle3 test-core bench published-table arm accuracy soak lint docs environments clean

demo: $(VENV)/ready
	$(BIN)/paddle-sparse train $(DEMO)

# $(call pytest,ENVIRONMENT,NAME,EXPRESSION,ARGUMENTS): tests in parallel, then those that measure time or memory alone.
# Results as JUnit XML in output/tests. `make test PYTEST_ARGS="--pdb -n0"` passes further arguments.
define pytest
	$(1)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadgroup -m "not serial$(3)" \
	  --junit-xml=output/tests/$(2).xml $(4) $(if $(COVERAGE),--cov --cov-report=) $(PYTEST_ARGS)
	$(1)/bin/python -m pytest -m "serial$(3)" --junit-xml=output/tests/$(2)-serial.xml $(4) $(PYTEST_ARGS) || \
	  [ $$? -eq 5 ]  # no such test was selected
endef
WITHOUT_DETECTION := --ignore paddle_sparse_cb/detection --ignore paddle_sparse_cb/recipe

# COVERAGE=1 prints the coverage of the package; slow tests and programs that tests start are not measured.
test: $(VENV)/ready $(VENV)/samples
	$(call pytest,$(VENV),python,,)
	$(if $(COVERAGE),@echo "coverage without slow tests: `$(BIN)/coverage report --format=total`%")

test-fast: $(VENV)/ready
	$(call pytest,$(VENV),fast, and not slow,)

test-paddle3: $(PADDLE3)/ready
	$(call pytest,$(PADDLE3),paddle3,,$(WITHOUT_DETECTION) -W default::UserWarning)  # known for Paddle 2.6 only

test-core:
ifeq ($(CORE_PYTHON),)
	@echo "test-core: no working Python 3.9 found; skipped"
else
	$(MAKE) --no-print-directory $(CORE)/ready
	CORE_TESTS_ONLY=1 $(CORE)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadgroup -m "not slow and not serial" \
	  --junit-xml=output/tests/core.xml $(WITHOUT_DETECTION) $(PYTEST_ARGS)
endif

bench: $(VENV)/ready
	$(BIN)/python tools/bench_pruner.py
	$(BIN)/python tools/bench_fit.py
	$(BIN)/python tools/bench_step.py recipes/picodet_s_garments.yml

published-table: $(VENV)/ready
	$(BIN)/python tools/published_table.py

# Sparse MNN models on an emulated ARM processor: outputs and instructions. Debian or Ubuntu on x86-64; some minutes.
arm: $(VENV)/ready
	$(BIN)/python tools/arm_emulated.py $(ARGS)

# A night on two cores. Resumable: runs whose result is in output/accuracy are not repeated. ARGS=--quick takes minutes.
accuracy: $(VENV)/ready
	$(BIN)/python tools/accuracy.py $(ARGS)

# Kills trainings, draws trainings, and damages files; some twenty minutes.
soak: $(VENV)/ready
	$(BIN)/python tools/soak.py $(ARGS)
	$(BIN)/python tools/soak_resume.py
	$(BIN)/python tools/fuzz.py
	$(BIN)/python tools/verify_mutations.py
	$(BIN)/python tools/mnn_mutations.py

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# The site in output/site. A dead link, or a name that the reference cannot find, is an error. Not --quiet: it drops the
# warnings that make a strict build fail.
docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	$(BIN)/python tools/check_site.py output/site

$(VENV)/ready: EXTRAS := cpu,detection,deploy,mnn,bench,notebook,dev,docs
$(VENV)/ready: INTERPRETER = $(PYTHON)
$(VENV)/ready: constraints.txt
$(CORE)/ready: EXTRAS := cpu,dev
$(CORE)/ready: INTERPRETER = $(CORE_PYTHON)
$(CORE)/ready: constraints.txt
$(PADDLE3)/ready: EXTRAS := cpu,mnn,dev
$(PADDLE3)/ready: INTERPRETER = $(PADDLE3_PYTHON)
$(PADDLE3)/ready: constraints-paddle3.txt

# --no-compile: of some ten thousand modules most are never imported; the others are compiled when they are.
$(VENV)/ready $(CORE)/ready $(PADDLE3)/ready: setup.cfg pyproject.toml
	@$(INTERPRETER) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' || \
	  { echo "$(INTERPRETER) is `$(INTERPRETER) --version 2>&1`; Python 3.9 to 3.11 is needed: PYTHON=python3.11 make ..." >&2; exit 1; }
	@echo "setting up $(@D) with `$(INTERPRETER) --version`: some minutes the first time"
	@$(INTERPRETER) -m venv $(@D) || { echo "no venv module: apt-get install python3-venv" >&2; exit 1; }
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --no-compile -c $(filter constraints%,$^) -e '.[$(EXTRAS)]'
	@touch $@

# All environments of the tests; `make -j3 environments` sets them up at once.
environments: $(VENV)/ready $(PADDLE3)/ready $(if $(CORE_PYTHON),$(CORE)/ready)

# Fetched before the tests, so that their processes do not all fetch the same packages.
$(VENV)/samples: $(VENV)/ready
	@$(BIN)/python -c 'import sys; from paddle_sparse_cb.detection.datasets import samples; \
	  [samples.resolve(name) for name in sys.argv[1:]]' picodet_s_416_lcnet trees_256 garments_96 && touch $@ || \
	  echo "the sample data cannot be fetched: tests that need them will fail" >&2

clean:
	rm -rf $(VENV) $(PADDLE3) $(CORE) output
