# Everything a newcomer needs: `make` lists it. Only Python >= 3.11, pip and make are presupposed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup dev demo test mutants compiled bench check format system-packages clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  (PYTHON=python3.13 chooses an interpreter, ARGS='-k embedded' is passed on to pytest)"

setup: $(VENV)/.setup ## Install Callboard into .venv (instant when nothing changed)
	@echo "ready: $(BIN)/callboard"

dev: $(VENV)/.dev ## Install the tools for development as well
	@:

demo: $(VENV)/.setup ## Run the demonstration: server, dispatcher, agents and tasks in one terminal
	@$(BIN)/callboard demo

test: $(VENV)/.dev ## Run the tests (a redis-server on PATH is used, else the bundled Valkey)
	@$(BIN)/python -m pytest -n auto --dist loadscope $(ARGS)

mutants: $(VENV)/.dev ## Break the program in many ways and see that the tests notice (ARGS=lease chooses by name)
	@$(BIN)/python -m tests.mutants $(ARGS)

compiled: $(VENV)/.dev ## Compile the core in a copy, test it there (ARGS='-m benchmarks.throughput' runs that instead)
	@$(BIN)/python -m tests.compiled $(ARGS)

bench: $(VENV)/.dev ## Measure everything in less than ten minutes (ARGS='--only latency', ARGS=--quick)
	@$(BIN)/python -m benchmarks.suite $(ARGS)

check: $(VENV)/.dev ## Lint, formatting, types and import contracts: what CI checks before the tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and apply safe fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

system-packages: ## Install redis-server where root and apt-get are at hand (optional)
	@if command -v redis-server >/dev/null; then \
		echo "redis-server is installed"; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "redis-server is not installed, and root with apt-get is not at hand: the bundled Valkey serves"; \
	elif { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
		--no-install-recommends redis-server; } >/dev/null </dev/null; then \
		echo "redis-server was installed"; \
	else \
		echo "redis-server could not be installed: the bundled Valkey serves"; \
	fi

clean: ## Remove the environment, builds and caches
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian splits ensurepip out of Python: without it the interpreter's own pip fills the environment.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, this is $$($(PYTHON) --version 2>&1 | head -n 1): make PYTHON=python3.13 ..."; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(VENV) install --quiet --quiet pip; }

# The stamps order only after the interpreter: its file is older than any stamp and never changes.
$(VENV)/.setup: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Callboard"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Callboard and the tools for development"
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/.setup $@
