# Every command of the project. `make` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The environment variable binds what builds the package too.
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What serving needs, and what developing needs beside it.
LOCAL := $(VENV)/.local
DEV := $(VENV)/.dev
CRD := crds/moorage.dev_modeldeployments.yaml

.DEFAULT_GOAL := help
.PHONY: help demo test unit check verify generate bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(LOCAL): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what serves into $(VENV)"
	@$(PIP) --editable '.[local]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what develops into $(VENV)"
	@$(PIP) --editable '.[local,dev,train]'
	@touch $@ $(LOCAL)

demo: $(LOCAL) ## Serve six real models, send them real rows over every protocol, look at the record
	@$(BIN)/python -m examples.demo

test: $(DEV) ## Run every test that this machine can run, and say what it could not
	$(BIN)/python -m pytest

unit: $(DEV) ## The inner loop: unit tests only, in seconds
	$(BIN)/python -m pytest tests/unit -q -n auto

check: $(DEV) ## Lint, format check, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests examples benchmarks
	$(BIN)/lint-imports

generate: $(LOCAL) ## Write what is made from the types: crds/
	@mkdir -p crds
	$(BIN)/python -m moorage_cli crd > $(CRD).new && mv $(CRD).new $(CRD)

verify: generate ## Regenerate, and fail when something differs from what is committed
	@changed=$$(git status --porcelain crds) && test -z "$$changed" || \
		{ echo "generated files differ; commit what 'make generate' wrote:"; echo "$$changed"; exit 1; }

bench: $(LOCAL) ## CPU per request of runtime and gateway beside a plain FastAPI route
	@$(BIN)/python -m benchmarks.serving

clean: ## Remove the environment, caches and what `make demo` stored
	rm -rf $(VENV) .moorage dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
