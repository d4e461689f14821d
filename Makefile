# make demo | test | lint | bench | soak | differential | clean: each works alone on a machine with Python >= 3.10 and a network.
# The first one makes .venv and installs; the next ones install nothing until pyproject.toml or constraints.txt changes.

PYTHON     ?= python3
DEMO_ARGS  ?=
TEST_ARGS  ?=
WORKERS    ?= 2
RAY_ARGS   ?= compare
BENCH_ARGS ?=
OUT        ?= out

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
PEER  := .peer-venv
STEP  := @printf '==> %s\n'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench soak differential clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## train on handwritten digits through a compiled graph (DEMO_ARGS="--epochs 1")
	$(STEP) "demo: results go to $(OUT)/demo"
	@$(BIN)/python examples/train_digits.py --out $(OUT)/demo $(DEMO_ARGS)

test: $(STAMP) ## the tests that CI runs (TEST_ARGS="-k allreduce -x", WORKERS=0: in one process)
	$(STEP) "pytest"
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(TEST_ARGS)

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	$(STEP) "ruff check"
	@$(BIN)/ruff check --quiet .
	$(STEP) "ruff format --check"
	@$(BIN)/ruff format --check --quiet .
	$(STEP) "mypy"
	@$(BIN)/mypy --no-error-summary
	$(STEP) "lint-imports"
	@$(BIN)/lint-imports --no-cache --no-logo

bench: $(STAMP) $(PEER)/.installed ## measure everything beside the floor and the real Ray (BENCH_ARGS="chain --actors 1")
	$(STEP) "benchmarks: also written to $(OUT)/bench.jsonl, with a report in $(OUT)/benchmarks"
	@mkdir -p $(OUT)
	@$(BIN)/python -m benchmarks --peer ray --json $(OUT)/bench.jsonl --report $(OUT)/benchmarks $(BENCH_ARGS)

soak: $(STAMP) ## the long tests: thousands of cycles, random kills
	$(STEP) "pytest -m soak"
	@$(BIN)/python -m pytest -m soak $(TEST_ARGS)

differential: $(STAMP) $(PEER)/.installed ## play the corpus under the real Ray too, and compare (RAY_ARGS=record)
	$(STEP) "tests.differential"
	@$(BIN)/python -m tests.differential $(RAY_ARGS) --ray $(PEER)/bin/python

clean: ## remove .venv, build leftovers and caches
	rm -rf $(VENV) $(PEER) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(STEP) "installing into $(VENV) (the first time torch takes a while)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(PEER)/.installed: tests/differential/peer-requirements.txt
	$(STEP) "installing the real Ray into $(PEER)"
	@"$(PYTHON)" -m venv $(PEER)
	@$(PEER)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null \
	  || { echo "no '$(PYTHON)' on this machine: install Python 3.10 or newer, or set PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "$$("$(PYTHON)" --version 2>&1) is too old: Python 3.10 or newer is needed; set PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "'$(PYTHON)' lacks the venv module: install it (Debian, Ubuntu: python3-venv) and run make again" >&2; exit 1; }
	$(STEP) "making $(VENV)"
	@"$(PYTHON)" -m venv $(VENV)
