# Each target sets up everything it needs in an environment of its own first; nothing has to be activated.
PYTHON ?= python3
BIN := .venv/bin
ENVS := build/envs
WORKERS ?= 2
# `make wheel TAG=v1.2.3` also checks that this tag is the one of the version.
TAG ?=
# `make test-wheel BUILT=1` takes the wheel that is in dist/ already.
BUILT ?=

# Tests compile much and compute little, so they compile in a hurry; those marked `optimized` with all passes that fuse.
# $(1): python; $(2): more arguments of pytest
define run_suite
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(1) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not optimized" $(2)
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(1) -m pytest --numprocesses $(WORKERS) --dist worksteal -m optimized $(2)
endef

# A fresh environment with the wheel, and the suite in it. Of the library, tests see the installed files alone. The
# wheel is imported before the extras are there.
# $(1): the name of the environment; $(2): more arguments of `pip install`
define run_suite_on_wheel
	$(PYTHON) -m venv --clear $(ENVS)/$(1)
	$(ENVS)/$(1)/bin/python -m pip install --quiet dist/*.whl $(2)
	$(ENVS)/$(1)/bin/python .ci/installed.py
	$(ENVS)/$(1)/bin/python -m pip install --quiet "$$(echo dist/*.whl)[tests,numpyro]" $(2)
	$(ENVS)/$(1)/bin/python .ci/installed.py
	$(call run_suite,$(ENVS)/$(1)/bin/python,-c pyproject.toml --rootdir . tests docs README.md --pyargs hiwae_jax)
endef

.PHONY: train toy tables lint suite test docs wheel test-wheel floors newest

train: .venv/installed  # train and evaluate all six models; ARGS="--dataset binarized_mnist --data-dir DIR" for MNIST
	$(BIN)/python -m experiments.vae $(ARGS)

toy: .venv/installed  # the two-dimensional target of the paper's figure 2
	$(BIN)/python -m experiments.toy $(ARGS)

tables: .venv/installed  # every generated page and figure again, from the files in results/
	$(BIN)/python -m benchmarks.pages

lint: .venv/installed  # lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

suite: .venv/installed  # examples in docstrings and docs, and all tests
	$(call run_suite,$(BIN)/python,)

test: lint suite  # everything that must pass

# Its notebooks run too; those that did not change come from .cache/docs.
docs: .venv/docs  # the documentation site, in build/docs; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	@echo "the documentation is build/docs/index.html"

wheel: $(ENVS)/release/installed  # sdist and wheel in dist/, checked
	rm -rf dist
	$(ENVS)/release/bin/python -m build --outdir dist .
	$(ENVS)/release/bin/python -m twine check --strict dist/*
	$(ENVS)/release/bin/python .ci/check_dist.py dist $(TAG)

test-wheel: $(if $(BUILT),,wheel)  # the suite against the wheel, in a fresh environment with the newest versions of everything
	$(call run_suite_on_wheel,wheel,)

floors: wheel  # the same with the lowest versions that pyproject.toml allows; PYTHON is the lowest one too
	$(PYTHON) .ci/floors.py > build/floors.txt
	$(call run_suite_on_wheel,floors,--constraint build/floors.txt)

newest: wheel  # the same with the newest JAX, also if it is a pre-release
	$(call run_suite_on_wheel,newest,--upgrade --pre jax jaxlib)

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

.venv/installed: pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[experiments,tests,lint]"
	touch $@

$(ENVS)/release/installed: Makefile
	$(PYTHON) -m venv $(ENVS)/release
	$(ENVS)/release/bin/python -m pip install --quiet build twine
	touch $@
