# Commands for everyone: `make demo` shows it working, `make test` proves it, `make bench` measures it. All of
# them set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench chaos soak growth check setup clean

demo: setup
	@$(BIN)/python -m processor demo

# Two at once, since much of it is waiting; `pytest` by itself runs one after the other.
test: setup check
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

# Within a quarter of an hour; `.venv/bin/python -m tests.load --help` shows its parts.
bench: .venv/.load
	@$(BIN)/python -m tests.load bench

# Every fault that we could think of, on real servers, and the oracle after each; `make test` has a short version.
chaos: setup
	@$(BIN)/python -m tests.faults chaos

# A million messages and a thousand kills.
soak: setup
	@$(BIN)/python -m tests.faults soak

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

# Long, and needs much disk, which it asks for first: what a message and a question cost as the table grows.
growth: setup
	@$(BIN)/python -m tests.load.growth

setup: .venv/.ready

# A half-made .venv is made again: the stamp is written last.
.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, and $(PYTHON) is not; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || \
	  { echo "python3 -m venv failed: on Debian and Ubuntu, 'apt-get install python3-venv' first"; exit 1; }
	@echo "Installing into .venv (half a minute, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -e '.[devstack,test]'
	@$(BIN)/python -m processor.devstack.launchers
	@touch $@

# What only the benchmark needs, so that the tests don't wait for it.
.venv/.load: .venv/.ready
	@echo "Installing what the benchmark races against (a minute, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -e '.[devstack,test,load]'
	@touch $@

clean:
	rm -rf .venv .processor
