# `make app` opens the explorer, `make test` proves that it works. `make help` lists the rest.

# Without stored bytecode every start would compile ten thousand files again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV ?= .venv
# Arguments passed on, e.g. `make app ARGS="--port 7861"`, `make test ARGS="-m 'not browser'"`.
ARGS ?=

PY := $(VENV)/bin/python
# Python compiles what it imports when it does; pip would compile all, most of it for nothing.
INSTALL := $(PY) -m pip install --no-input --no-compile --disable-pip-version-check -c constraints.txt
# A stamp is newer than the pins exactly when they are installed, so a second start runs no pip.
APP_STAMP := $(VENV)/.installed-app
TEST_STAMP := $(VENV)/.installed-test
PINS := pyproject.toml setup.py constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help app install test lint browser clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

app: $(APP_STAMP) ## install what is missing and serve the page on 127.0.0.1:7860
	@exec $(PY) -m app $(ARGS)

install: $(APP_STAMP) ## install the pinned packages into .venv

test: ## ruff, mypy and the whole test suite, browser tests included
	@$(MAKE) --no-print-directory -j 2 $(TEST_STAMP) $(if $(findstring not browser,$(ARGS)),,browser)
	@$(MAKE) --no-print-directory lint
ifeq ($(strip $(ARGS)),)
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --ignore tests/browser
	@$(PY) -m pytest tests/browser
else
	@exec $(PY) -m pytest $(ARGS)
endif

lint: $(TEST_STAMP) ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m mypy --num-workers 2

clean: ## remove what builds and tests leave behind (not .venv, not cache/)
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@command -v "$(PYTHON)" >/dev/null || { echo "Python 3.11 or newer is needed, and there is no '$(PYTHON)' on this machine. Name one: make app PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1 | head -n 1). Name another: make app PYTHON=python3.11" >&2; exit 1; }
	@echo "Creating $(VENV) with $$("$(PYTHON)" -V 2>&1 | head -n 1)"
	@"$(PYTHON)" -m venv "$(VENV)" || { rm -rf "$(VENV)"; echo "The environment could not be created. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(APP_STAMP): $(PINS) | $(PY)
	@echo "Installing the pinned packages into $(VENV) (once; a few minutes)"
	@$(INSTALL) --quiet setuptools wheel
	@$(INSTALL) --no-build-isolation -e .
	@touch $@

$(TEST_STAMP): $(PINS) | $(PY)
	@echo "Installing the pinned packages and the test tools into $(VENV) (once; a few minutes)"
	@$(INSTALL) --quiet setuptools wheel
	@$(INSTALL) --no-build-isolation -e '.[test]'
	@touch $(APP_STAMP) $@

# The browser tests look for the same names, after $CHROMIUM too.
browser:
	@for name in "$$CHROMIUM" chromium chromium-browser google-chrome google-chrome-stable; do \
	  [ -n "$$name" ] && command -v "$$name" >/dev/null 2>&1 && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "Installing Chromium for the browser tests"; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium; \
	else \
	  echo "The browser tests need Chromium. Debian and Ubuntu: sudo apt install chromium. Elsewhere: install Chromium or Chrome and set CHROMIUM=/path/to/it. Without them: make test ARGS=\"-m 'not browser'\"" >&2; \
	  exit 1; \
	fi
