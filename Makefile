# A fresh machine needs make, git and Python 3.11 or newer; everything else goes into .venv.
#
#   make run     follow what opens and closes; ARGS="--proto tcp" adds arguments
#   make test    the whole test suite; ARGS="-k feed" chooses from it
#   make lint    ruff and mypy
#   make bench   compare with ss, netstat, lsof and psutil; POLLS="--soak 10" adds to what polls cost
#   make install    a service of systemd, with a virtual environment in PREFIX; DESTDIR stages it
#   make uninstall  removes that, but for what you configured
#   make deb        a Debian package, in dist/
#   make lock       pin what these two take anew, with hashes, in systemd/*requirements.txt
#   make clean   remove what these have made

PYTHON ?= python3
ARGS ?=
POLLS ?=
VENV := .venv
BIN := $(VENV)/bin
PREFIX ?= /opt/sockagent
BINDIR ?= /usr/local/bin
UNITDIR ?= /etc/systemd/system
EXAMPLES ?= $(PREFIX)/share
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check install

.PHONY: help run test lint bench install uninstall deb lock clean FORCE
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.installed
	@exec $(BIN)/sockagent --follow $(ARGS)

test: $(VENV)/.dev
	@exec $(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy

bench: $(VENV)/.dev
	@$(BIN)/python -m bench compare $(ARGS)
	@$(BIN)/python -m bench polls $(POLLS)
	@$(BIN)/python -m bench feed

PLACES = PYTHON='$(PYTHON)' PREFIX='$(PREFIX)' BINDIR='$(BINDIR)' UNITDIR='$(UNITDIR)' \
    EXAMPLES='$(EXAMPLES)' DESTDIR='$(DESTDIR)'

install:
	@$(PLACES) systemd/install

uninstall:
	@$(PLACES) systemd/uninstall

deb:
	@systemd/debian/build '$(PYTHON)'

lock: $(VENV)/.installed
	@$(BIN)/python systemd/lock.py

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

# Done once, and again when what is to be installed changes.
$(VENV)/.dev: $(VENV)/.installed
	@$(PIP) --group dev >&2
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml
	@$(PIP) --editable . >&2
	@touch $@

# Holds the interpreter's name, so that another PYTHON makes another environment. pip installs
# dependency groups from 25.1 on.
$(VENV)/.python: FORCE
	$(if $(changed),$(if $(problem),$(error $(problem))))
	@$(if $(changed),echo "Setting up $(VENV)" >&2,:)
	@$(if $(changed),$(PYTHON) -m venv $(if $(wildcard $@),--clear) $(VENV) >&2,:)
	@$(if $(changed),$(PIP) --upgrade 'pip>=25.1' >&2,:)
	@$(if $(changed),echo '$(PYTHON)' >$@,:)

changed = $(filter-out $(shell cat $(VENV)/.python 2>/dev/null),$(PYTHON))

# What is wrong with PYTHON, in one sentence.
problem = $(shell \
	if ! command -v $(PYTHON) >/dev/null; then \
	    echo "There is no $(PYTHON): install Python 3.11 or newer, or name it, as in make PYTHON=python3.12"; \
	elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    echo "$$($(PYTHON) -V 2>&1) is too old: name Python 3.11 or newer, as in make PYTHON=python3.12"; \
	elif ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	    echo "$(PYTHON) cannot make virtual environments: install the Debian package python3-venv"; \
	fi)
