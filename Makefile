# make demo   a first green run, in a virtual environment made here
# make test   lint, types, import contracts and all tests
# make bench  what a run costs beside its peers (NODES=50); make bench-check fails where the goals are missed
# make setup  only the virtual environment: the command is .venv/bin/testbed

# The first Python that is new enough; choose another with `make PYTHON=python3.13 ...`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: setup setup-dev setup-system demo test lint unit bench bench-check clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "testbed needs Python 3.11 or newer; none was found. Name one: make PYTHON=... $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory venv-package
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.PHONY: venv-package
venv-package:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -q && apt-get install -q -y python3-venv' >/dev/null; \
	else echo "this Python cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; fi

setup-dev: setup $(VENV)/.installed-dev

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

# What the tests need of the system. Without root, the tests that need it are skipped and say so.
setup-system:
	@sh tests/system-packages.sh

demo: setup
	$(BIN)/testbed run examples/hello/deployment.yml

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup-dev setup-system
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test: lint unit

# The peers have an environment of their own: nothing of testbed needs them.
NODES ?= 50
BENCH_VENV := .venv-bench

$(BENCH_VENV)/.installed: benchmarks/requirements.txt $(VENV)/.installed
	$(BIN)/python -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

bench: setup $(BENCH_VENV)/.installed
	$(BIN)/python -m benchmarks --nodes $(NODES) $(BENCH_ARGS)

bench-check: bench
	$(BIN)/python -m benchmarks --check

clean:
	rm -rf $(VENV) $(BENCH_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
