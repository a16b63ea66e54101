# Two commands on a fresh machine: `make demo` and `make test`. Everything else is for developers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.poa-env
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
# One process per core; tests of one file share its fixtures.
PYTEST_ARGS ?= -n auto --dist loadfile
BENCH ?= import_time
# The libraries that poa is compared with, in an environment of their own.
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.poa-env

# Tests and benchmarks do not depend on how many cores there are.
test test-full bench: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help env demo test test-full lint bench peers clean

help:
	@echo "make env        prepare $(VENV) from requirements.txt (python 3.11 or newer)"
	@echo "make demo       the main job: train, attribute, check, pay, write a ledger (needs no network)"
	@echo "make test       lint, then every test that is not slow"
	@echo "make test-full  lint, then every test, slow ones included"
	@echo "make lint       ruff, pyright strict, import floors"
	@echo "make bench      benchmarks named in BENCH (default: $(BENCH)); progress on stderr, JSON on stdout"
	@echo "make peers      prepare $(PEERS) with the libraries of docs/peers.md from requirements-bench.txt"
	@echo "make clean      remove caches and build output; keeps $(VENV), $(PEERS) and runs/"

env: $(STAMP)

# The stamp is written last, so an interrupted installation is taken up again. The lock is complete, so the first pass
# needs no resolver; the second adds only what a torch build for another platform (CUDA) asks for itself.
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "poa needs python 3.11 or newer; $(PYTHON) is older: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@if [ ! -x $(BIN)/python ]; then echo "env: creating $(VENV)"; $(PYTHON) -m venv $(VENV); fi
	@echo "env: installing the versions of requirements.txt (a minute or two the first time)"
	@$(PIP) --no-deps -r requirements.txt
	@$(PIP) -r requirements.txt
	@echo "env: installing poa itself, editable"
	@$(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip check -qq --disable-pip-version-check
	@touch $@
	@echo "env: ready"

demo: env
	@$(BIN)/poa run experiment=quickstart

test: lint
	$(BIN)/python -m pytest -m "not slow and not gpu and not network" $(PYTEST_ARGS)

test-full: lint
	$(BIN)/python -m pytest -m "not gpu and not network" $(PYTEST_ARGS)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

bench: env
	@for name in $(BENCH); do $(BIN)/poa bench $$name || exit 1; done

peers: $(PEERS_STAMP)

# As above, but the peers' own requirements are left out where nothing here imports them: see requirements-bench.txt.
$(PEERS_STAMP): requirements-bench.txt pyproject.toml
	@if [ ! -x $(PEERS)/bin/python ]; then echo "peers: creating $(PEERS)"; $(PYTHON) -m venv $(PEERS); fi
	@echo "peers: installing the versions of requirements-bench.txt (a few minutes the first time)"
	@$(PEERS)/bin/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements-bench.txt
	@$(PEERS)/bin/python -m pip install -qq --disable-pip-version-check "$$(grep '^torch==' requirements-bench.txt)"
	@$(PEERS)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(PEERS)/bin/python -c 'import captum, dattri, kronfluence, trak, bergson, poa'
	@touch $@
	@echo "peers: ready"

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache wandb
	find src tests experiments -name __pycache__ -type d -prune -exec rm -rf {} +
