# Every target does its own set-up in .venv, again only when pyproject.toml or constraints.txt has changed.
#   make PYTHON=python3.12 test     another interpreter (after `make clean`)
#   make test ARGS="-k fedprox"     more arguments for pytest
#   make test WORKERS=0             in one process; by default one for each core, eight at most
#   make bench QUICK=1              the short form of every benchmark

PYTHON ?= python3
ARGS ?=
WORKERS ?= auto
# The slow tests mostly wait: three files at a time keep two cores busy.
SLOW_WORKERS ?= 3
QUICK ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := runs/demo
# Chosen on validation rows by benchmarks/demo_settings.py, which has the same words; README.md has them, too.
DEMO_RUN := task=breast_cancer aggregation=secure privacy=record_distributed privacy.epsilon=1 privacy.sampling_rate=0.5 strategy.rounds=60 training.lr=2 privacy.clip=0.5

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0
# Flower would otherwise install the app's dependencies anew, GPU builds included, before each run.
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-bench test-all lint types bench docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv (the other targets do it by themselves)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Quire needs Python 3.11 or newer, which '$(PYTHON)' is not: name one with 'make PYTHON=/path/to/python3.11 ...'." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot make virtual environments: install its 'venv' module (on Debian, the package python3-venv)." >&2; exit 1; }
	@echo "Installing into $(VENV): some minutes the first time."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## Train five hospitals with privacy on real data; ends by naming the report page
	@rm -rf $(DEMO)
	$(BIN)/quire run $(DEMO_RUN) hydra.run.dir=$(DEMO)

test: $(READY) ## The fast test suite
	$(BIN)/pytest -m "not slow" -n $(WORKERS) --maxprocesses 8 --dist worksteal $(ARGS)

test-slow: $(READY) ## End-to-end cases on Flower's own runtimes
	$(BIN)/pytest -m "slow and not bench" -n $(SLOW_WORKERS) --dist loadfile --timeout 900 $(ARGS)

test-bench: $(READY) ## The short form of every benchmark, and whether it keeps the contract of all
	$(BIN)/pytest -m bench -n $(WORKERS) --maxprocesses 2 $(ARGS)

test-all: test test-slow test-bench ## Every test

lint: $(READY) types ## Style, format and types
	$(BIN)/ruff check . .ci/types
	$(BIN)/ruff format --check . .ci/types

types: $(READY) ## mypy --strict over the whole package
	$(BIN)/python .ci/types

bench: $(READY) ## Run every benchmark and write docs/benchmarks.md anew
	$(BIN)/python benchmarks/run_all.py $(if $(QUICK),--quick)

docs: $(READY) ## Write the generated pages anew; check links and docstrings
	@for script in docs/generate_*.py; do [ ! -e "$$script" ] || $(BIN)/python "$$script" || exit 1; done
	$(BIN)/pytest tests/test_house.py -k "docstring or link" $(ARGS)

clean: ## Remove .venv, caches and build leftovers (runs/ stays)
	rm -rf $(VENV) .build build dist *.egg-info *.fab .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
