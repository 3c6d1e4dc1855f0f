# Everything that people and CI run. Works with uv when it is on PATH, and with python3 and pip alone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV  ?= .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.set-up
SOURCES := $(wildcard include plugins local dags benchmarks)
ARGS  ?=
# The first of these that is new enough makes the virtual environment; `make setup PYTHON=...` picks another.
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14)
# An environment of another project, and an Airflow of another project, must not reach into this one.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME AIRFLOW_HOME

.PHONY: help setup demo up down status test test-rest check format bench bench-full zipapp requirements clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: $(STAMP)  ## virtual environment in .venv with everything in it

$(STAMP): requirements-dev.txt pyproject.toml
	@if ! $(PY) -c '' 2>/dev/null; then \
	  found=; for candidate in $(PYTHONS); do \
	    if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; then \
	      found=$$candidate; break; fi; done; \
	  if [ -z "$$found" ]; then \
	    echo "make setup: none of [$(PYTHONS)] is a Python from 3.11 to 3.14." >&2; \
	    echo "  Install one (Debian: apt-get install python3 python3-venv) or name it: make setup PYTHON=/path/to/python3" >&2; \
	    exit 1; fi; \
	  echo "== virtual environment in $(VENV) with $$("$$found" --version)"; \
	  rm -rf $(VENV); \
	  if command -v uv >/dev/null; then uv venv --quiet --python "$$(command -v "$$found")" $(VENV); \
	  elif ! "$$found" -m venv $(VENV); then \
	    rm -rf $(VENV); \
	    echo "make setup: $$found cannot make virtual environments (Debian: apt-get install python3-venv)." >&2; \
	    exit 1; fi; fi
	@echo "== packages of requirements-dev.txt (hashes checked)"
	@if command -v uv >/dev/null; then \
	  uv pip install --quiet --compile-bytecode --python $(PY) --require-hashes -r requirements-dev.txt; \
	  uv pip install --quiet --python $(PY) --no-build-isolation --no-deps --editable .; \
	else \
	  $(PY) -m pip install --quiet --require-hashes -r requirements-dev.txt; \
	  $(PY) -m pip install --quiet --no-build-isolation --no-deps --editable .; fi
	@touch $@

demo: setup  ## bring the stack up and run releases to promotion, no-op and rollback
	@$(PY) -m trainyard_cli.main demo $(ARGS)

up: setup  ## start the local stack
	@$(PY) -m local.stack up $(ARGS)

down: setup  ## stop it, and whatever it left behind
	@$(PY) -m local.stack down $(ARGS)

status: setup  ## services, ports, logs
	@$(PY) -m local.stack status $(ARGS) || [ $$? = 3 ]  # 3: not running, which is an answer

# Most tests wait for servers of their own, so three at a time fill two cores; the end-to-end ones share one stack and
# measure it, so they run alone. ARGS picks tests instead: make test ARGS='tests/unit -k plan'.
test: setup  ## tests in under ten minutes, the story of a release end to end at last
ifeq ($(strip $(ARGS)),)
	@$(PY) -m pytest --numprocesses 3 --dist loadfile --ignore tests/e2e --ignore tests/faults
	@$(PY) -m pytest tests/e2e/test_releases.py tests/e2e/test_screens.py
else
	@$(PY) -m pytest $(ARGS)
endif

# Random kills, flipped bits, stumbling servers, a full disk; then all releases end to end in one stack, with every
# engine and every fault. TRAINYARD_KILLS=200 kills more.
test-rest: setup  ## what `make test` leaves out, a quarter of an hour: injected faults, all engines
	@$(PY) -m pytest --numprocesses 3 --dist loadfile tests/faults
	@$(PY) -m pytest tests/e2e

check: setup  ## lint, format, types, layers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) -m mypy $(SOURCES)
	$(VENV)/bin/lint-imports --cache-dir build/import-linter

format: setup  ## mend what ruff can mend
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup  ## benchmarks of under a minute each
	@$(PY) -m benchmarks $(ARGS)

bench-full: setup  ## all benchmarks
	@$(PY) -m benchmarks --full $(ARGS)

zipapp: setup  ## build/trainyard.pyz, which runs our code in other people's images
	@$(PY) -m trainyard.jobs.zipapp $(ARGS)

# Hashes of every platform's files, and no word of the index they came from.
UV_COMPILE = uv pip compile pyproject.toml --quiet --extra local --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make requirements'

requirements:  ## compile requirements*.txt anew from pyproject.toml (needs uv; ARGS=--upgrade for newer versions)
	@command -v uv >/dev/null || { echo "make requirements: needs uv (pip install uv)" >&2; exit 1; }
	$(UV_COMPILE) $(ARGS) -o requirements.txt
	$(UV_COMPILE) $(ARGS) --group dev --constraint requirements.txt -o requirements-dev.txt

clean:  ## remove build results and caches; the virtual environment and the stack's state stay
	rm -rf build .ruff_cache dist
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
