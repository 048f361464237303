# `make demo` and `make test` are all the set-up there is. Another Python: make demo PYTHON=python3.12
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
CASES  ?= 10000
SEED   ?= 0
JOBS   ?= 2
TIERS  ?= not slow
PROMPT ?= a fox on a purple background

SOURCES := $(shell find ursa_cli ursa_core -type f -not -name '*.pyc' 2>/dev/null)
# An editable install (made by `make test`) already runs the current sources.
INSTALLED := $(if $(wildcard $(VENV)/.dev),$(VENV)/.dev,$(VENV)/.app)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test fuzz clean

help:  ## List these targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 14

demo: $(INSTALLED)  ## Install into .venv and write out.mp4 from a text prompt
	$(BIN)/ursa sample "$(PROMPT)" -o out.mp4 --force

# Most tests compute on one thread: files of them side by side fill the cores.
test: $(VENV)/.dev  ## Install with the development tools, then run every gate (JOBS=, TIERS= of tests)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "$(TIERS)"

fuzz: $(VENV)/.dev  ## Feed every reader of files 10,000 damaged inputs (READERS="images configs", CASES=, SEED=)
	$(BIN)/python -m tests.fuzz --cases $(CASES) --seed $(SEED) $(READERS)

clean:  ## Remove .venv, caches and build outputs
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache out.mp4
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "ursa needs Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch comes first and pinned, so that no dependency can draw in another build of it.
$(VENV)/.torch: $(VENV)/.python constraints.txt
	$(PIP) torch==2.13.0
	@touch $@

$(VENV)/.app: $(VENV)/.torch pyproject.toml $(SOURCES)
	$(PIP) '.[lora]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[dev]'
	@rm -f $(VENV)/.app
	@touch $@
