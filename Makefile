# Requires make, git and Python 3.11 or newer; everything else is installed into .venv.
#
#   make run        follow the sockets of this machine; ARGS="--proto tcp" adds options
#   make check      run the unit tests in parallel, in less than a minute; ARGS="-k feed" selects tests
#   make test       run all tests, including those in tests/machine; ARGS="-k feed" selects tests
#   make lint       run ruff and mypy, and tsc on the page if npm is installed
#   make bench      compare with ss, netstat, lsof and psutil; POLLS="--soak 10" adds a soak test
#   make man        regenerate the man page and the shell completions in share/
#   make lock       pin the newest dependencies, with hashes, in systemd/*requirements.txt
#   make install    install the systemd service in PREFIX; DESTDIR stages the installation
#   make uninstall  remove the installation; keep configuration files that were changed
#   make deb        build a Debian package in dist/
#   make clean      remove .venv and everything that was built

PYTHON ?= python3
ARGS ?=
POLLS ?=
VENV := .venv
BIN := $(VENV)/bin
PREFIX ?= /opt/sockagent
BINDIR ?= /usr/local/bin
DATADIR ?= /usr/local/share
UNITDIR ?= /etc/systemd/system
EXAMPLES ?= $(PREFIX)/share
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check install

.PHONY: help run check test lint tsc bench man lock install uninstall deb clean FORCE
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.installed
	@exec $(BIN)/sockagent --follow $(ARGS)

check: $(VENV)/.dev
	@exec $(BIN)/python -m pytest --quiet --numprocesses 2 --ignore tests/machine $(ARGS)

test: $(VENV)/.dev
	@exec $(BIN)/python -m pytest --numprocesses 2 $(ARGS)

lint: $(VENV)/.dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory tsc; \
	else echo 'The page was not checked: tsc requires npm; install the Debian package npm.' >&2; fi

# Checks the types in the JavaScript of the page.
tsc: $(VENV)/node/.installed
	@$(VENV)/node/node_modules/.bin/tsc --project tests/page

bench: $(VENV)/.dev
	@$(BIN)/python -m bench compare $(ARGS)
	@$(BIN)/python -m bench polls $(POLLS)
	@$(BIN)/python -m bench feed
	@$(BIN)/python -m bench page
	@$(BIN)/python -m bench relay

man: $(VENV)/.dev
	@$(BIN)/python systemd/manual.py

lock: $(VENV)/.installed
	@$(BIN)/python systemd/lock.py

DIRECTORIES = PYTHON='$(PYTHON)' PREFIX='$(PREFIX)' BINDIR='$(BINDIR)' DATADIR='$(DATADIR)' \
    UNITDIR='$(UNITDIR)' EXAMPLES='$(EXAMPLES)' DESTDIR='$(DESTDIR)'

install:
	@$(DIRECTORIES) systemd/install

uninstall:
	@$(DIRECTORIES) systemd/uninstall

deb:
	@systemd/debian/build '$(PYTHON)'

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

# Installed again when pyproject.toml changes.
$(VENV)/.dev: $(VENV)/.installed
	@$(PIP) --group dev >&2
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml
	@$(PIP) --editable . >&2
	@touch $@

$(VENV)/node/.installed: $(VENV)/.python tests/page/package.json
	@mkdir -p $(@D)
	@cp tests/page/package.json $(@D)
	@npm install --prefix $(@D) --no-audit --no-fund --loglevel error >&2
	@touch $@

# Contains the value of PYTHON, so that another value creates the environment again. pip supports
# dependency groups since version 25.1.
$(VENV)/.python: FORCE
	$(if $(changed),$(if $(problem),$(error $(problem))))
	@$(if $(changed),echo "Creating $(VENV)" >&2,:)
	@$(if $(changed),$(PYTHON) -m venv $(if $(wildcard $@),--clear) $(VENV) >&2,:)
	@$(if $(changed),$(PIP) --upgrade 'pip>=25.1' >&2,:)
	@$(if $(changed),echo '$(PYTHON)' >$@,:)

changed = $(filter-out $(shell cat $(VENV)/.python 2>/dev/null),$(PYTHON))

# An error message if PYTHON cannot be used, and otherwise nothing.
problem = $(shell \
	if ! command -v $(PYTHON) >/dev/null; then \
	    echo "$(PYTHON) is not installed; install Python 3.11 or newer, or name it, for example make PYTHON=python3.12"; \
	elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    echo "$$($(PYTHON) -V 2>&1) is too old; name Python 3.11 or newer, for example make PYTHON=python3.12"; \
	elif ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	    echo "$(PYTHON) cannot create virtual environments; install the Debian package python3-venv"; \
	fi)
