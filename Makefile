# `make test` and `make demo` work from a fresh clone: each makes what it needs.
PYTHON ?= $(shell command -v python3.11 2>/dev/null || echo python3)
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test bindings lint format reproduce install system clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(VENV)/.installed-all  ## open napari with a sample (without a screen: run it and save pictures)
	$(if $(HAS_SCREEN),,$(ON_SCREEN)) $(BIN)/napari-msgan demo --output demo-output $(if $(HAS_SCREEN),,--unattended)

test: lint  ## everything that CI runs: lint, types, tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --ignore tests/gui
	$(if $(GUI_TESTS),$(ON_SCREEN) $(BIN)/python -m pytest --numprocesses $(JOBS) tests/gui)

bindings: $(VENV)/.installed-dev  ## window tests under the other Qt bindings that napari knows
	$(call TEST_WITH,pyqt5,PyQt5==5.15.11)
	$(call TEST_WITH,pyside6,PySide6_Essentials==6.10.3)

lint: $(VENV)/.installed-dev  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

reproduce: $(VENV)/.installed-dev  ## compare methods, PARTS="xray-time ..." MINUTES=90 (days, if all; goes on where it stopped)
	$(BIN)/python -m benchmarks.reproduce $(or $(PARTS),--help) $(if $(MINUTES),--minutes $(MINUTES)) $(REPRODUCE)

install: $(VENV)/.installed-dev  ## the virtual environment for development

clean:  ## remove what was made here, the virtual environment too
	rm -rf $(VENV) build dist *.egg-info demo-output .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# These are evaluated when a recipe starts, after `system` may have installed xvfb-run.
HAS_SCREEN = $(DISPLAY)$(WAYLAND_DISPLAY)
ON_SCREEN = $(if $(shell command -v xvfb-run 2>/dev/null),xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX")
GUI_TESTS := $(wildcard tests/gui/test_*.py tests/gui/*/test_*.py)

# napari warns that Qt 5 cannot tell the theme of the system; warnings end tests.
define TEST_WITH
$(BIN)/python -m pip install --quiet --upgrade --target $(VENV)/bindings/$(1) $(2)
PYTHONPATH=$(VENV)/bindings/$(1) QT_API=$(1) PYTEST_QT_API=$(1) OMP_NUM_THREADS=1 \
	$(ON_SCREEN) $(BIN)/python -m pytest -W "ignore:System theme detection" tests/gui
endef

system:
	@tools/debian-packages.sh $(PYTHON)

# pip comes last, so a half-made environment is made again.
$(BIN)/pip: | system
	$(PYTHON) -m venv $(VENV)

# One environment for both: the stamps name the extras that it has.
$(VENV)/.installed-%: setup.py constraints.txt napari_msgan/__init__.py | system $(BIN)/pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$*]'
	touch $@
