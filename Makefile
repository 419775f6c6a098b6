# Each target sets up everything it needs in .venv first; nothing has to be activated.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: train toy tables test docs

train: .venv/installed  # train and evaluate all six models; ARGS="--dataset binarized_mnist --data-dir DIR" for MNIST
	$(BIN)/python -m experiments.vae $(ARGS)

toy: .venv/installed  # the two-dimensional target of the paper's figure 2
	$(BIN)/python -m experiments.toy $(ARGS)

tables: .venv/installed  # every generated page and figure again, from the files in results/
	$(BIN)/python -m benchmarks.pages

# Tests compile much and compute little, so they compile in a hurry; those marked `optimized` with all passes that fuse.
test: .venv/installed  # lint, types, examples in docstrings and docs, and the whole suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(PYTEST) -m "not optimized"
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(PYTEST) --dist worksteal -m optimized

# Its notebooks run too; those that did not change come from .cache/docs.
docs: .venv/docs  # the documentation site, in build/docs; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	@echo "the documentation is build/docs/index.html"

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

.venv/installed: pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[experiments,tests,lint]"
	touch $@
