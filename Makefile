# Everything a clone needs. The work is done in tools/; this file says what depends on what.

SHELL = /bin/sh
VENV = .venv
BIN = $(VENV)/bin
JOBS ?= 2
SEEDS ?= 10
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadscope

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help demo test check lint bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.stamp-run ## install srpha into .venv and run its demonstration
	@$(BIN)/srpha demo

test: lint $(VENV)/.stamp-outside ## lint, types and every test, outside tools and seed campaigns included (SEEDS=10)
	@$(PYTEST) --seeds $(SEEDS)

check: lint ## lint, types and the tests that need neither outside tools nor campaigns
	@$(PYTEST) -m "not outside and not scenario"

lint: $(VENV)/.stamp-dev ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/.stamp-dev ## measure, and write bench-results/
	@$(BIN)/python -m benchmarks

docs: $(VENV)/.stamp-docs ## build the HTML and man pages into docs/_build
	@$(BIN)/python -m tools.reference
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@$(BIN)/python -m sphinx -q -W --keep-going -b man docs docs/_build/man

clean: ## remove what was built; .venv stays
	rm -rf build dist/*.whl dist/*.tar.gz bench-results docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@sh tools/make-venv.sh $(VENV)

$(VENV)/.stamp-run: pyproject.toml | $(BIN)/python
	@echo "installing srpha into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml | $(BIN)/python
	@echo "installing srpha and its development tools into $(VENV)"
	@$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.stamp-run

$(VENV)/.stamp-docs: pyproject.toml | $(BIN)/python
	@echo "installing the documentation tools into $(VENV)"
	@$(PIP) install --editable '.[docs]'
	@touch $@ $(VENV)/.stamp-run

$(VENV)/.stamp-outside: tools/debian-packages.txt tools/install-outside-tools.sh | $(BIN)/python
	@sh tools/install-outside-tools.sh tools/debian-packages.txt
	@touch $@
