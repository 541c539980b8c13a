# The menu. `make demo`, `make test` and `make run` need nothing but make and python3 (3.11 or newer):
# they make .venv, install into it, and install again only when pyproject.toml has changed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
USABLE := $(VENV)/.usable
READY  := $(VENV)/.installed
ARGS   ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test peers lint format types imports bench docs dist sbom run ci clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo '  ARGS="..." is handed on, for example: make test ARGS="tests/queue -k lease"'

# What it takes to use the gateway; the tools for working on it come on top, and take longer.
$(USABLE): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: $(PYTHON) was not found. Install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or newer is needed, but $(PYTHON) is `$(PYTHON) -V 2>&1`." >&2; \
	  echo "make: name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: this Python cannot make virtual environments (venv or ensurepip is missing)." >&2; \
	  echo "make: on Debian and Ubuntu: apt install python3-venv; elsewhere install Python's full package." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(READY): $(USABLE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

demo: $(USABLE) ## a tour: the real daemon among hosts good and bad, then your own mail (ARGS=--once: just the tour)
	$(BIN)/gateway demo $(ARGS)

test: $(READY) ## every test that needs no other program, on all cores
	$(BIN)/pytest -n auto --dist loadgroup -m "not peer" $(ARGS)

peers: $(READY) ## Postfix, swaks and strace against the running gateway: deliveries, crash proofs (root; minutes)
	$(BIN)/pytest -m peer $(ARGS)

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## let ruff set the format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY) ## mypy --strict, tests included
	$(BIN)/mypy

imports: $(READY) ## the arrows between the rooms, by import-linter
	$(BIN)/lint-imports

bench: $(READY) ## speed, CPU, latency and memory, beside Postfix (see bench/README.md)
	$(BIN)/python -m bench $(ARGS)

docs: $(READY) ## write the configuration reference and the commented sample again
	$(BIN)/python -m gateway.config.docs

# The time of the last commit in every file: the same source makes the same bytes. Old ones go: a release is what is new.
dist: $(READY) ## wheel and source archive, in dist/
	rm -rf dist
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-`git log -1 --format=%ct 2>/dev/null || echo 1577836800`} \
	  $(BIN)/python -m build --no-isolation --outdir dist .

# Of what the wheel brings into an empty environment, not of the tools around here.
sbom: dist ## what the wheel consists of, as CycloneDX, in dist/sbom.json
	rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	$(BIN)/python -m pip --python build/sbom install --quiet --disable-pip-version-check dist/*.whl
	$(BIN)/python -m cyclonedx_py environment --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --of JSON -o dist/sbom.json build/sbom/bin/python

run: $(USABLE) ## the daemon with config/quickstart.yaml
	$(BIN)/gateway run --config config/quickstart.yaml $(ARGS)

ci: ## what the build server runs
	.ci/run

clean: ## remove what make and the tools have made; never a store
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
