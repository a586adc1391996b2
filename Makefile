# Everything runs in an environment of its own, made in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-exhaustive test-all lint types docs check notebooks package bench load release clean

demo: $(VENV)/demo
	$(BIN)/atldld demo --output demo-output/atldld-demo.png

test: $(VENV)/develop
	$(BIN)/pytest -q -n auto -m "not exhaustive"

# What takes long: clusters, kills, a browser, the harness of the benchmarks.
test-exhaustive: $(VENV)/develop
	$(BIN)/pytest -q -n auto -m exhaustive

test-all: test test-exhaustive

lint: $(VENV)/develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/develop
	$(BIN)/mypy

# The site, in build/docs.
docs: $(VENV)/develop
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet --fresh-env docs build/docs

check: test-all lint types docs

# Runs the notebooks against a stand-in for the service and stores them with their pictures.
notebooks: $(VENV)/develop
	PYTHONPATH=tests $(BIN)/python tests/run_notebooks.py

# Wheel and source distribution, installed on every Python that is found here.
package: $(VENV)/develop
	$(BIN)/python tests/package/everywhere.py

# Takes about 40 minutes; the peer's environment and the images are kept in build/benchmarks.
bench: $(VENV)/develop
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.atlas --output build/benchmarks/atlas.json
	$(BIN)/python -m benchmarks.published --output build/benchmarks/published.json

# 20,000 section reads from a failing service on a cluster that loses workers: 10 to 15 minutes.
load: $(VENV)/develop
	$(BIN)/python -m benchmarks.load

# What a release must pass, and takes too long for every change.
release: check package load bench
	RUN_ALL_NOTEBOOKS=1 $(BIN)/pytest -q tests/notebooks

clean:
	rm -rf $(VENV) demo-output build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The demo needs only what a user installs.
$(VENV)/demo: $(VENV)/bin/python pyproject.toml $(shell find src -name '*.py')
	$(BIN)/python -m pip install --quiet .
	@touch $@

$(VENV)/develop: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[lint]'
	@touch $@ $(VENV)/demo
