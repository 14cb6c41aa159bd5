# Needs Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DOCS := $(VENV)/.docs-installed

# Installing behind a link would change, or empty, the environment of another checkout.
UNLINKED = test ! -L $(VENV) || { echo "expected no link at $(VENV), got one to $$(readlink $(VENV)), which would be emptied; remove the link" >&2; exit 1; }

.PHONY: help venv test demo docs lint format clean

help:
	@echo "make venv   install the pinned dependencies into $(VENV); enter it: source $(BIN)/activate"
	@echo "make test   lint and run all tests"
	@echo "make demo   train a toy, reconstruct brain MRI and head CT with the shipped prior"
	@echo "make docs   build the documentation as a site: docs/_build/html/index.html"
	@echo "make format rewrite the sources in the project's style"
	@echo "make clean  remove $(VENV), caches and the demo's results"

venv: $(STAMP)

# The stamp is written last: an interrupted install starts over.
$(STAMP): pyproject.toml constraints.txt
	@$(UNLINKED)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python >= 3.11, got " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv --clear $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,io]"
	@rm -rf build *.egg-info
	@touch $@
	@echo "in each new terminal: source $(CURDIR)/$(BIN)/activate"

test: lint
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash training_scripts/demo.sh $(DEMO_ARGS)

# Sphinx and its like come on top of the environment, for those who build the site.
$(DOCS): $(STAMP)
	@$(UNLINKED)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,io,docs]"
	@rm -rf build *.egg-info
	@touch $@

docs: $(DOCS)
	$(BIN)/python docs/build.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info runs/demo* results/demo* docs/_build
